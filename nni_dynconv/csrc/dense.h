// Dense convolution with stride 1 and a kernel for each sample, LANES places in a vector: rows of a plane lie one behind
// the other with the zeros between them, so that no row is too short. What is computed at the zeros is thrown away.
//
// Included once per instruction set, after `rows.h`.

constexpr int OUTPUTS = LANES == 16 ? 8 : 4;  // channels at a time, of three vectors each: as registers allow
constexpr int64_t STRIP_PLACES = 768;         // so many places of OUTPUTS channels stay in the first cache

// The planes of one sample, each with zeros around it, and so many behind it that a vector too many does no harm.
struct Field {
  const int64_t C, H, W, pitch, plane;
  const Floats memory;
  float *const corner, *const origin;  // of the first plane: its first value, which begins a vector, and its first zero

  Field(int64_t C, int64_t H, int64_t W, int64_t top, int64_t left, int64_t rows, int64_t pitch)
      : C(C), H(H), W(W), pitch(pitch), plane(whole(rows * pitch) + LANES), memory(C * plane + pitch + 5 * LANES),
        corner(memory.data + whole(top * pitch + left)), origin(corner - top * pitch - left) {}

  void draw(const float* x) const {
    for (int64_t c = 0; c < C; ++c) {
      for (int64_t y = 0; y < H; ++y, x += W) copy(corner + c * plane + y * pitch, x, W);
    }
  }
};

// The places that an output sees, from its own on, and how far apart weights are: of the next output, of the next input.
struct Stencil {
  const Integers places;
  const int64_t count, next_out, next_in;

  Stencil(const Geometry& g, int64_t pitch, bool turned, int64_t next_out, int64_t next_in)
      : places(g.Kh * g.Kw), count(g.Kh * g.Kw), next_out(next_out), next_in(next_in) {
    for (int64_t t = 0; t < count; ++t) {
      places.data[turned ? count - 1 - t : t] = t / g.Kw * g.dh * pitch + t % g.Kw * g.dw;
    }
  }
};

// The vectors that cover H rows of W places: row by row where whole ones fit, else one behind the other, zeros and all.
struct Cover {
  const int64_t H, W, pitch;
  const bool packed;  // no zeros
  const int64_t count;
  const Integers at;

  Cover(int64_t H, int64_t W, int64_t pitch)
      : H(H), W(W), pitch(pitch), packed(W % LANES == 0), count(within(H)), at(count) {
    const int64_t row = packed ? W / LANES : count;
    for (int64_t i = 0; i < count; ++i) at.data[i] = i / row * pitch + i % row * LANES;
  }

  // How many of them, the first, cover some rows.
  int64_t within(int64_t rows) const { return packed ? rows * (W / LANES) : up((rows - 1) * pitch + W, LANES); }
};

// V vectors of O outputs, which are `apart`.
template <int O, int V>
ALONE static void mix(const Field& in, int64_t first, const int64_t* at, const Stencil& seen, const float* weight,
                      float* out, int64_t apart) {
  vec total[O * V] = {};
  const float* plane[V];
  UNROLL for (int v = 0; v < V; ++v) plane[v] = in.origin + first + at[v];
  for (int64_t c = 0; c < in.C; ++c, weight += seen.next_in) {
    for (int64_t t = 0; t < seen.count; ++t) {
      vec one[V];
      UNROLL for (int v = 0; v < V; ++v) {
        one[v] = load(plane[v] + seen.places.data[t]);
        IN_REGISTER(one[v]);
      }
      UNROLL for (int o = 0; o < O; ++o) {
        const vec own = every(weight[o * seen.next_out + t]);
        UNROLL for (int v = 0; v < V; ++v) total[o * V + v] += one[v] * own;
      }
    }
    UNROLL for (int v = 0; v < V; ++v) plane[v] += in.plane;
  }
  UNROLL for (int o = 0; o < O; ++o) {
    UNROLL for (int v = 0; v < V; ++v) store(out + o * apart + v * LANES, total[o * V + v]);
  }
}

using Mix = void (*)(const Field&, int64_t, const int64_t*, const Stencil&, const float*, float*, int64_t);

template <int O>
static Mix mix_of(int64_t vectors) {
  return vectors == 3 ? mix<O, 3> : vectors == 2 ? mix<O, 2> : mix<O, 1>;
}

static Mix mix_of(int64_t outputs, int64_t vectors) {
  return outputs == OUTPUTS ? mix_of<OUTPUTS>(vectors) : outputs == 4 ? mix_of<4>(vectors)
       : outputs == 2       ? mix_of<2>(vectors) : mix_of<1>(vectors);
}

static int64_t some_outputs(int64_t left) { return left >= OUTPUTS ? OUTPUTS : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

static int64_t some_vectors(int64_t left) { return left == 4 ? 2 : least(left, 3); }

// `C` planes, all of one cover.
static void convolve(const Field& in, const Stencil& seen, const Cover& cover, const float* weight, int64_t C,
                     float* out) {
  const int64_t H = cover.H, W = cover.W;
  const int64_t strip = least(H, most(1, STRIP_PLACES / in.pitch)), behind = whole(strip * in.pitch);
  const Floats unpacked(cover.packed ? 0 : OUTPUTS * behind);
  for (int64_t y = 0; y < H; y += strip) {
    const int64_t rows = least(strip, H - y), vectors = cover.within(rows);
    for (int64_t c = 0, some; c < C; c += some, out += some * H * W) {
      some = some_outputs(C - c);
      float* const to = cover.packed ? out + y * W : unpacked.data;
      const int64_t apart = cover.packed ? H * W : behind;
      for (int64_t i = 0, these; i < vectors; i += these) {
        these = some_vectors(vectors - i);
        mix_of(some, these)(in, y * in.pitch, cover.at.data + i, seen, weight + c * seen.next_out, to + i * LANES, apart);
      }
      for (int64_t r = 0; r < (cover.packed ? 0 : some * rows); ++r) {
        copy(out + (r / rows * H + y + r % rows) * W, to + r / rows * apart + r % rows * in.pitch, W);
      }
    }
    out -= C * H * W;
  }
}

// Sums over places of a gradient times what is seen from there: of LANES / 4 channels and of four neighbours.
constexpr int GRADIENTS = LANES / 4;

static INLINE vec correlate(const float* const (&grad)[GRADIENTS], const float* const (&seen)[4], const int64_t* at,
                            int64_t vectors) {
  vec sum[LANES] = {};
  for (int64_t i = 0; i < vectors; ++i) {
    vec one[4];
    UNROLL for (int t = 0; t < 4; ++t) {
      one[t] = load(seen[t] + at[i]);
      IN_REGISTER(one[t]);
    }
    UNROLL for (int o = 0; o < GRADIENTS; ++o) {
      const vec own = load(grad[o] + at[i]);
      UNROLL for (int t = 0; t < 4; ++t) sum[o * 4 + t] += own * one[t];
    }
  }
  return sum_lanes(sum);
}

// Those of `live` channels, which are `apart` in `dw`, and of all `count` neighbours; `more` are added to what is there.
ALONE static void correlate(const float* const (&grad)[GRADIENTS], const float* in, const int64_t* places, int64_t count,
                            const int64_t* at, int64_t vectors, int64_t live, bool more, float* dw) {
  for (int64_t t = 0; t < count; t += 4) {
    const float* seen[4];
    UNROLL for (int i = 0; i < 4; ++i) seen[i] = in + places[least(t + i, count - 1)];
    float sums[LANES];
    store(sums, correlate(grad, seen, at, vectors));
    const int64_t some = least(4, count - t);
    float* to = dw + t;
    for (int64_t o = 0; o < live; ++o, to += count) {
      if (some == 4 && !more) __builtin_memcpy(to, sums + o * 4, 16);
      else for (int64_t i = 0; i < some; ++i) to[i] = sums[o * 4 + i] + (more ? to[i] : 0);
    }
  }
}

// `dw` of one sample, by strips of places that stay in the first cache; `places` are those of all inputs.
static void correlate(const Field& in, const Field& grad, const Integers& places, int64_t count, const Cover& cover,
                      float* dw) {
  const int64_t strip = up(cover.count, up(cover.count, 2 * STRIP_PLACES / LANES));
  for (int64_t first = 0; first < cover.count; first += strip) {
    for (int64_t o = 0; o < grad.C; o += GRADIENTS) {
      const float* own[GRADIENTS];
      for (int i = 0; i < GRADIENTS; ++i) own[i] = grad.corner + least(o + i, grad.C - 1) * grad.plane;
      correlate(own, in.origin, places.data, count, cover.at.data + first, least(strip, cover.count - first),
                least(GRADIENTS, grad.C - o), first > 0, dw + o * count);
    }
  }
}

// Samples `first` to `last`.
static void forward_dense(const Geometry& g, const float* x, const float* weight, float* y, int64_t first, int64_t last) {
  const int64_t pitch = g.W + 2 * g.pw, count = g.Kh * g.Kw;
  const Field input(g.C, g.H, g.W, g.ph, g.pw, g.H + 2 * g.ph, pitch);
  const Stencil seen(g, pitch, false, g.C * count, count);
  const Cover cover(g.Ho, g.Wo, pitch);
  for (int64_t b = first; b < last; ++b) {
    input.draw(x + b * g.C * g.H * g.W);
    convolve(input, seen, cover, weight + b * g.outputs * g.C * count, g.outputs, y + b * g.outputs * g.Ho * g.Wo);
  }
}

// Samples `first` to `last`. `dx` or `dw` may be null.
static void backward_dense(const Geometry& g, const float* x, const float* weight, const float* dy, float* dx, float* dw,
                           int64_t first, int64_t last) {
  const int64_t top = (g.Kh - 1) * g.dh - g.ph, left = (g.Kw - 1) * g.dw - g.pw, count = g.Kh * g.Kw;
  const int64_t pitch = most(g.W + 2 * g.pw, g.Wo + 2 * left), kernels = g.outputs * g.C * count;
  const Field input(g.C, g.H, g.W, g.ph, g.pw, g.H + 2 * g.ph, pitch);
  const Field grad(g.outputs, g.Ho, g.Wo, top, left, g.Ho + 2 * top, pitch);
  const Stencil turned(g, pitch, true, count, g.C * count);
  const Integers places(g.C * count);
  const Cover inputs(g.H, g.W, pitch), outputs(g.Ho, g.Wo, pitch);
  for (int64_t i = 0; i < g.C * count; ++i) {
    places.data[i] = i / count * input.plane + turned.places.data[count - 1 - i % count];
  }
  for (int64_t b = first; b < last; ++b) {
    grad.draw(dy + b * g.outputs * g.Ho * g.Wo);
    if (dx) convolve(grad, turned, inputs, weight + b * kernels, g.C, dx + b * g.C * g.H * g.W);
    if (!dw) continue;
    input.draw(x + b * g.C * g.H * g.W);
    correlate(input, grad, places, g.C * count, outputs, dw + b * kernels);
  }
}
