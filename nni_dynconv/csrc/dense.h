// Dense convolution with a kernel for each sample, LANES places in a vector: rows of a plane lie one behind the other
// with the zeros between them, so that no row is too short. What is computed at the zeros is thrown away.
//
// With a stride, places that are as many apart lie side by side: a plane is dealt out to phases, and each tap sees one of
// them without gaps. Included once per instruction set, after `rows.h`.

constexpr int OUTPUTS = LANES == 16 ? 8 : 4;  // channels at a time, of three vectors each: as registers allow
constexpr int64_t STRIP_PLACES = 768;         // so many places of OUTPUTS channels stay in the first cache

// One axis of a convolution: sizes of input, output and kernel; stride, padding, dilation.
struct Axis {
  int64_t in, out, K, stride, padding, dilation;

  int64_t reach() const { return (K - 1) * dilation; }
  int64_t last() const { return (in - 1 + padding) / stride; }  // the place of the last input in its phase
  int64_t seen() const { return most(out + reach() / stride, last() + 1); }  // places of a phase of the input
  int64_t before() const { return up(reach() - padding, stride); }           // zeros before the gradient of the output
  int64_t pulled() const { return before() + most(out, last() + 1); }        // places of that gradient
};

struct Axes {
  const Axis t, h, w;

  explicit Axes(const Geometry& g)
      : t{g.T, g.To, g.Kt, g.st, g.pt, g.dt}, h{g.H, g.Ho, g.Kh, g.sh, g.ph, g.dh}, w{g.W, g.Wo, g.Kw, g.sw, g.pw, g.dw} {}

  int64_t taps() const { return t.K * h.K * w.K; }
  int64_t phases() const { return t.stride * h.stride * w.stride; }
  int64_t inputs() const { return t.in * h.in * w.in; }
  int64_t outputs() const { return t.out * h.out * w.out; }
};

// Values along one axis, zeros before them, and the phases that they are dealt out to.
struct Along {
  int64_t size, before, phases;

  int64_t first(int64_t phase) const { return (phase + phases - before % phases) % phases; }  // its first value,
  int64_t place(int64_t value) const { return (value + before) / phases; }                    // and where that goes
};

// How far apart places are in memory: of the next row, of the next frame.
struct Pitch {
  int64_t row, frame;
};

// The planes of one sample with zeros around them, and so many behind them that a vector too many does no harm.
struct Field {
  const Along t, h, w;
  const Pitch pitch;
  const int64_t C, phase, plane;
  const Floats memory;
  float* const origin;  // the first zero; the first value begins a vector, or with phases the first zero

  Field(int64_t C, const Along& t, const Along& h, const Along& w, int64_t frames, const Pitch& pitch)
      : t(t), h(h), w(w), pitch(pitch), C(C), phase(whole(frames * pitch.frame) + LANES),
        plane(phase * t.phases * h.phases * w.phases), memory(C * plane + 2 * LANES),
        origin(memory.data + (plane == phase ? whole(before()) - before() : 0)) {}

  int64_t before() const { return t.before * pitch.frame + h.before * pitch.row + w.before; }

  // Place `z, y, x` of a plane with its zeros.
  int64_t at(int64_t z, int64_t y, int64_t x) const {
    const int64_t number = (z % t.phases * h.phases + y % h.phases) * w.phases + x % w.phases;
    return number * phase + z / t.phases * pitch.frame + y / h.phases * pitch.row + x / w.phases;
  }

  void draw(const float* x) const {
    float* to = origin;
    for (int64_t i = 0; i < t.phases; ++i) {
      for (int64_t j = 0; j < h.phases; ++j) {
        for (int64_t k = 0; k < w.phases; ++k, to += phase) deal(x, t.first(i), h.first(j), w.first(k), to);
      }
    }
  }

 private:
  // One phase of all planes, whose first value is at `z0, y0, x0`.
  void deal(const float* x, int64_t z0, int64_t y0, int64_t x0, float* to) const {
    const int64_t n = up(w.size - x0, w.phases);
    to += t.place(z0) * pitch.frame + h.place(y0) * pitch.row + w.place(x0);
    for (int64_t c = 0; c < C; ++c, x += t.size * h.size * w.size, to += plane) {
      float* frame = to;
      for (int64_t z = z0; z < t.size; z += t.phases, frame += pitch.frame) {
        float* row = frame;
        const float* from = x + (z * h.size + y0) * w.size + x0;
        for (int64_t y = y0; y < h.size; y += h.phases, row += pitch.row, from += h.phases * w.size) {
          if (w.phases == 1) copy(row, from, n);
          else for (int64_t i = 0; i < n; ++i) row[i] = from[i * w.phases];
        }
      }
    }
  }
};

static Field input_field(const Geometry& g, const Axes& axes, const Pitch& pitch) {
  const auto along = [](const Axis& axis) { return Along{axis.in, axis.padding, axis.stride}; };
  return Field(g.C, along(axes.t), along(axes.h), along(axes.w), axes.t.seen(), pitch);
}

static Field gradient_field(const Geometry& g, const Axes& axes, const Pitch& pitch) {
  const auto along = [](const Axis& axis) { return Along{axis.out, axis.before(), 1}; };
  return Field(g.outputs, along(axes.t), along(axes.h), along(axes.w), axes.t.pulled(), pitch);
}

static Pitch pitch_of(int64_t rows, int64_t columns) { return {columns, rows * columns}; }

// The taps that an output sees, frame by frame: where, from its own place on, and which weight; and how far apart weights
// are: of the next output, of the next input.
struct Stencil {
  const int64_t next_out, next_in;

  Stencil(int64_t taps, int64_t next_out, int64_t next_in)
      : next_out(next_out), next_in(next_in), places_(taps), taps_(taps), frames_(taps) {}

  void see(int64_t frame, int64_t place, int64_t tap) {
    frames_.data[count_] = frame, places_.data[count_] = place, taps_.data[count_++] = tap;
  }

  // Those that see one of the frames `first` to `last`.
  struct Seen {
    const int64_t *places, *taps, count;
  };

  Seen within(int64_t first, int64_t last) const {
    int64_t from = 0, to = count_;
    const auto outside = [&](int64_t i) { return frames_.data[i] < first || frames_.data[i] >= last; };
    while (from < to && outside(from)) ++from;
    while (from < to && outside(to - 1)) --to;
    return {places_.data + from, taps_.data + from, to - from};
  }

  int64_t place(int64_t i) const { return places_.data[i]; }

 private:
  const Integers places_, taps_, frames_;
  int64_t count_ = 0;
};

static void see_inputs(Stencil& seen, const Axes& axes, const Field& in) {
  for (int64_t tap = 0; tap < axes.taps(); ++tap) {
    const int64_t x = tap % axes.w.K, y = tap / axes.w.K % axes.h.K, z = tap / axes.w.K / axes.h.K * axes.t.dilation;
    seen.see(z, in.at(z, y * axes.h.dilation, x * axes.w.dilation), tap);
  }
}

// The vectors that cover T frames of H rows of W places: row by row where whole ones fit, else one behind the other,
// zeros and all.
struct Cover {
  const int64_t T, H, W;
  const Pitch pitch;
  const bool packed;  // no zeros
  const int64_t count;
  const Integers at;

  Cover(int64_t T, int64_t H, int64_t W, const Pitch& pitch)
      : T(T), H(H), W(W), pitch(pitch), packed(W % LANES == 0),
        count(packed ? T * within(H) : up((T - 1) * pitch.frame + (H - 1) * pitch.row + W, LANES)), at(count) {
    const int64_t row = W / LANES;
    for (int64_t i = 0; i < count; ++i) {
      at.data[i] = packed ? i / row / H * pitch.frame + i / row % H * pitch.row + i % row * LANES : i * LANES;
    }
  }

  // How many of them, the first, cover some rows of a frame.
  int64_t within(int64_t rows) const { return packed ? rows * (W / LANES) : up((rows - 1) * pitch.row + W, LANES); }
};

// Where outputs go: the first one, and the steps to the next channel, frame, row and column.
struct Target {
  float* first;
  int64_t channel, frame, row, column;

  void put(const float* from, int64_t c, int64_t z, int64_t y, int64_t n) const {
    float* to = first + c * channel + z * frame + y * row;
    if (column == 1) return copy(to, from, n);
    for (int64_t i = 0; i < n; ++i) to[i * column] = from[i];
  }
};

// V vectors of O outputs, which are `apart`.
template <int O, int V>
ALONE static void mix(const Field& in, int64_t first, const int64_t* at, const Stencil& all, const Stencil::Seen& seen,
                      const float* weight, float* out, int64_t apart) {
  vec total[O * V] = {};
  const float* plane[V];
  UNROLL for (int v = 0; v < V; ++v) plane[v] = in.origin + first + at[v];
  for (int64_t c = 0; c < in.C; ++c, weight += all.next_in) {
    for (int64_t t = 0; t < seen.count; ++t) {
      vec one[V];
      UNROLL for (int v = 0; v < V; ++v) {
        one[v] = load(plane[v] + seen.places[t]);
        IN_REGISTER(one[v]);
      }
      UNROLL for (int o = 0; o < O; ++o) {
        const vec own = every(weight[o * all.next_out + seen.taps[t]]);
        UNROLL for (int v = 0; v < V; ++v) total[o * V + v] += one[v] * own;
      }
    }
    UNROLL for (int v = 0; v < V; ++v) plane[v] += in.plane;
  }
  UNROLL for (int o = 0; o < O; ++o) {
    UNROLL for (int v = 0; v < V; ++v) store(out + o * apart + v * LANES, total[o * V + v]);
  }
}

using Mix = void (*)(const Field&, int64_t, const int64_t*, const Stencil&, const Stencil::Seen&, const float*, float*,
                     int64_t);

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

// Room for strips of OUTPUTS channels, of rows so far apart.
static int64_t room(const Pitch& pitch) { return whole(most(STRIP_PLACES, pitch.row)); }

// `C` planes, all of one cover, each frame of which looks `step` frames further than the one before. `aside` has `room`
// for each of OUTPUTS channels.
static void convolve(const Field& in, int64_t step, const Stencil& all, const Cover& cover, const float* weight, int64_t C,
                     float* aside, const Target& to) {
  const int64_t strip = least(cover.H, most(1, STRIP_PLACES / in.pitch.row)), apart = cover.packed ? cover.W : in.pitch.row;
  const bool straight = cover.packed && to.column == 1 && to.row == cover.W;
  for (int64_t z = 0; z < cover.T; ++z) {
    const int64_t ahead = in.t.before - z * step;  // of the first frame that is more than zeros
    const Stencil::Seen seen = all.within(ahead, ahead + in.t.size);
    for (int64_t y = 0; y < cover.H; y += strip) {
      const int64_t rows = least(strip, cover.H - y), vectors = cover.within(rows);
      const int64_t first = z * in.pitch.frame + y * in.pitch.row, behind = straight ? to.channel : room(in.pitch);
      for (int64_t c = 0, some; c < C; c += some) {
        some = some_outputs(C - c);
        float* const out = straight ? to.first + c * to.channel + z * to.frame + y * to.row : aside;
        for (int64_t i = 0, these; i < vectors; i += these) {
          these = some_vectors(vectors - i);
          mix_of(some, these)(in, first, cover.at.data + i, all, seen, weight + c * all.next_out, out + i * LANES, behind);
        }
        if (straight) continue;
        for (int64_t o = 0; o < some; ++o) {
          for (int64_t r = 0; r < rows; ++r) to.put(aside + o * behind + r * apart, c + o, z, y + r, cover.W);
        }
      }
    }
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
      for (int i = 0; i < GRADIENTS; ++i) own[i] = grad.origin + grad.before() + least(o + i, grad.C - 1) * grad.plane;
      correlate(own, in.origin, places.data, count, cover.at.data + first, least(strip, cover.count - first),
                least(GRADIENTS, grad.C - o), first > 0, dw + o * count);
    }
  }
}

// Samples `first` to `last`.
static void forward_dense(const Geometry& g, const float* x, const float* weight, float* y, int64_t first, int64_t last) {
  const Axes axes(g);
  const int64_t taps = axes.taps(), outputs = axes.outputs();
  const Field input(input_field(g, axes, pitch_of(axes.h.seen(), axes.w.seen())));
  Stencil seen(taps, g.C * taps, taps);
  see_inputs(seen, axes, input);
  const Cover cover(axes.t.out, axes.h.out, axes.w.out, input.pitch);
  const Floats aside(OUTPUTS * room(input.pitch));
  for (int64_t b = first; b < last; ++b) {
    input.draw(x + b * g.C * axes.inputs());
    const Target to{y + b * g.outputs * outputs, outputs, axes.h.out * axes.w.out, axes.w.out, 1};
    convolve(input, axes.t.stride, seen, cover, weight + b * g.outputs * g.C * taps, g.outputs, aside.data, to);
  }
}

// The inputs of one phase: the taps that they took part in, where in the gradient of the output those lie, and how many
// inputs they are. Without a stride there is one phase.
struct Phase {
  Stencil seen;
  const Cover cover;
  const int64_t first;  // of its inputs

  Phase(const Axes& axes, const Field& grad, int64_t inputs, int64_t z, int64_t y, int64_t x)
      : seen(axes.taps(), axes.taps(), inputs * axes.taps()),
        cover(count(axes.t, z), count(axes.h, y), count(axes.w, x), grad.pitch),
        first((z * axes.h.in + y) * axes.w.in + x) {
    const Subset t(subset(axes.t, z)), h(subset(axes.h, y)), w(subset(axes.w, x));
    for (int64_t i = 0; i < t.count; ++i) {
      for (int64_t j = 0; j < h.count; ++j) {
        for (int64_t k = 0; k < w.count; ++k) {
          const int64_t tap = (t.tap(i) * axes.h.K + h.tap(j)) * axes.w.K + w.tap(k);
          const int64_t frame = grad.t.before + t.place(i);
          seen.see(frame, grad.before() + t.place(i) * grad.pitch.frame + h.place(j) * grad.pitch.row + w.place(k), tap);
        }
      }
    }
  }

 private:
  static int64_t count(const Axis& axis, int64_t first) { return up(axis.in - first, axis.stride); }
  static Subset subset(const Axis& axis, int64_t first) {
    return Subset(first, axis.padding, axis.dilation, axis.stride, axis.K);
  }
};

// All phases that have inputs.
struct Phases {
  int64_t count = 0;

  Phases(const Axes& axes, const Field& grad, int64_t inputs) : memory_(axes.phases() * up(sizeof(Phase), sizeof(int64_t))) {
    for (int64_t z = 0; z < least(axes.t.stride, axes.t.in); ++z) {
      for (int64_t y = 0; y < least(axes.h.stride, axes.h.in); ++y) {
        for (int64_t x = 0; x < least(axes.w.stride, axes.w.in); ++x) {
          new (all() + count++) Phase(axes, grad, inputs, z, y, x);
        }
      }
    }
  }
  ~Phases() {
    while (count) all()[--count].~Phase();
  }

  const Phase& operator[](int64_t i) const { return all()[i]; }

 private:
  const Integers memory_;

  Phase* all() const { return reinterpret_cast<Phase*>(memory_.data); }
};

// Samples `first` to `last`. `dx` or `dw` may be null, and `x` without `dw`.
static void backward_dense(const Geometry& g, const float* x, const float* weight, const float* dy, float* dx, float* dw,
                           int64_t first, int64_t last) {
  const Axes axes(g);
  const int64_t taps = axes.taps(), kernels = g.outputs * g.C * taps, inputs = axes.inputs();
  const Pitch pitch(pitch_of(most(axes.h.seen(), axes.h.pulled()), most(axes.w.seen(), axes.w.pulled())));
  const Field input(input_field(g, axes, pitch)), grad(gradient_field(g, axes, pitch));
  const Phases phases(axes, grad, g.C);
  Stencil seen(taps, g.C * taps, taps);
  see_inputs(seen, axes, input);
  const Integers places(g.C * taps);
  for (int64_t i = 0; i < g.C * taps; ++i) places.data[i] = i / taps * input.plane + seen.place(i % taps);
  const Cover cover(axes.t.out, axes.h.out, axes.w.out, pitch);
  const Floats aside(OUTPUTS * room(pitch));
  for (int64_t b = first; b < last; ++b) {
    grad.draw(dy + b * g.outputs * axes.outputs());
    for (int64_t i = 0; dx && i < phases.count; ++i) {
      const int64_t frame = axes.h.in * axes.w.in;
      const Target to{dx + b * g.C * inputs + phases[i].first, inputs, axes.t.stride * frame, axes.h.stride * axes.w.in, axes.w.stride};
      convolve(grad, 1, phases[i].seen, phases[i].cover, weight + b * kernels, g.C, aside.data, to);
    }
    if (!dw) continue;
    input.draw(x + b * g.C * inputs);
    correlate(input, grad, places, g.C * taps, cover, dw + b * kernels);
  }
}
