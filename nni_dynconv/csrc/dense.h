// Dense convolution, LANES places in a vector. What is computed at zeros between rows is thrown away.
//
// Included once per instruction set, after `correlate.h`.

constexpr int OUTPUTS = LANES == 16 ? 8 : 4;  // channels at a time, of three vectors each: as registers allow
constexpr int64_t STRIP_PLACES = 768;         // so many places of OUTPUTS channels stay in the first cache

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
static int64_t room(const Pitch& pitch) { return whole(least(most(STRIP_PLACES, pitch.row), pitch.frame)); }

// `C` planes, all of one cover, each frame of which looks `step` frames further than the one before. `aside` has `room`
// for each of OUTPUTS channels.
static void convolve(const Field& in, int64_t step, const Stencil& all, const Cover& cover, const float* weight, int64_t C,
                     float* aside, const Target& to) {
  const int64_t strip = least(cover.H, most(1, STRIP_PLACES / in.pitch.row));
  const int64_t apart = cover.packed ? cover.W : in.pitch.row;
  const bool straight = cover.packed && to.column == 1 && to.row == cover.W;
  for (int64_t z = 0; z < cover.T; ++z) {
    const int64_t ahead = in.t.before - z * step;  // of the first frame that is more than zeros
    const Stencil::Seen seen = all.of_frames(ahead, ahead + in.t.size);
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

// Samples `first` to `last`.
static void forward_dense(const Geometry& g, const float* x, const float* weight, float* y, int64_t first, int64_t last) {
  const Axes axes(g);
  const int64_t taps = axes.taps(), outputs = axes.outputs();
  const Field input(input_field(g, axes));
  Stencil seen(taps, g.C * taps, taps);
  see_inputs(seen, axes, input);
  const Cover cover(axes.t.out, axes.h.out, axes.w.out, input.pitch);
  const Floats aside(OUTPUTS * room(input.pitch));
  for (int64_t b = first; b < last; ++b) {
    input.draw(x + b * g.C * axes.inputs());
    const Target to{y + b * g.outputs * outputs, outputs, axes.h.out * axes.w.out, axes.w.out, 1};
    convolve(input, axes.t.stride, seen, cover, weight + g.set(b) * g.outputs * g.C * taps, g.outputs, aside.data, to);
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

  Phases(const Axes& axes, const Field& grad, int64_t inputs)
      : memory_(axes.phases() * up(sizeof(Phase), sizeof(int64_t))) {
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

// Gradients of the input, a sample at a time.
struct Pull {
  const Geometry& g;
  const Axes& axes;
  const Field& grad;
  const Phases phases;
  const Floats aside;

  Pull(const Geometry& g, const Axes& axes, const Field& grad)
      : g(g), axes(axes), grad(grad), phases(axes, grad, g.C), aside(OUTPUTS * room(grad.pitch)) {}

  void operator()(const float* weight, float* dx) const {
    const int64_t row = axes.h.stride * axes.w.in, frame = axes.t.stride * axes.h.in * axes.w.in;
    for (int64_t i = 0; i < phases.count; ++i) {
      const Target to{dx + phases[i].first, axes.inputs(), frame, row, axes.w.stride};
      convolve(grad, 1, phases[i].seen, phases[i].cover, weight, g.C, aside.data, to);
    }
  }
};

// Samples `first` to `last`. `dx` or `dw` may be null, and `x` without `dw`, which samples must not share.
static void backward_dense(const Geometry& g, const float* x, const float* weight, const float* dy, float* dx, float* dw,
                           int64_t first, int64_t last) {
  const Axes axes(g);
  const Field grad(gradient_field(g, axes));
  const Pull pull(g, axes, grad);
  const auto each = [&](const auto& correlate) {
    for (int64_t b = first; b < last; ++b) {
      grad.draw(dy + b * g.outputs * axes.outputs());
      if (dx) pull(weight + g.set(b) * g.outputs * g.C * axes.taps(), dx + b * g.C * axes.inputs());
      correlate(x, dy, dw, b, 0, g.outputs);
    }
  };
  if (dw) with_correlate(g, axes, grad, each);
  else each([](auto...) {});
}
