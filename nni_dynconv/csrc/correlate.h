// Gradients of the weight of a dense convolution, summed over the samples that share a set of weights, in two ways:
// LANES places in a vector, whose sum over lanes costs as much as a small plane; and LANES input channels in a vector,
// of which there must be enough.
//
// Included once per instruction set, after `fields.h`.

constexpr int GRADIENTS = LANES / 4;             // channels at a time, and four neighbours of each place:
constexpr int64_t STRIP_VECTORS = 1536 / LANES;  // so many vectors of all of them stay in the first cache

// Sums over places of a gradient times what is seen from there.
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

// LANES places at a time.
struct Correlation {
  const Geometry& g;
  const Axes& axes;
  const int64_t count;  // of all inputs' taps
  const Field input;
  const Field& grad;
  const Integers places;
  const Cover cover;

  Correlation(const Geometry& g, const Axes& axes, const Field& grad)
      : g(g), axes(axes), count(g.C * axes.taps()), input(input_field(g, axes)), grad(grad), places(count),
        cover(axes.t.out, axes.h.out, axes.w.out, input.pitch) {
    Stencil seen(axes.taps(), 0, 0);
    see_inputs(seen, axes, input);
    for (int64_t i = 0; i < count; ++i) {
      places.data[i] = i / axes.taps() * input.plane + seen.place(i % axes.taps());
    }
  }

  // `dw` of outputs `first` to `last` of one set, by strips of places that stay in the first cache.
  void operator()(const float* x, const float* dy, float* dw, int64_t set, int64_t first, int64_t last) const {
    const int64_t strip = up(cover.count, up(cover.count, STRIP_VECTORS));
    for (int64_t i = 0; i < g.together(); ++i) {
      const int64_t b = g.sample(set, i);
      input.draw(x + b * g.C * axes.inputs()), grad.draw(dy + b * g.outputs * axes.outputs());
      for (int64_t v = 0; v < cover.count; v += strip) {
        for (int64_t o = first; o < last; o += GRADIENTS) {
          const float* own[GRADIENTS];
          for (int k = 0; k < GRADIENTS; ++k) {
            own[k] = grad.origin + grad.before() + least(o + k, last - 1) * grad.plane;
          }
          correlate(own, input.origin, places.data, count, cover.at.data + v, least(strip, cover.count - v),
                    least(GRADIENTS, last - o), v > 0 || i > 0, dw + (set * g.outputs + o) * count);
        }
      }
    }
  }
};

constexpr int TAPS = 6;                      // at a time,
constexpr int PULLED = LANES == 16 ? 4 : 2;  // of so many outputs: as registers allow; where there are few taps,
constexpr int FEW_TAPS = 2, PULLED_BY_FEW = 2 * PULLED;  // of more
constexpr int64_t CROWD_BYTES = 512 << 10;

// LANES input channels at a time, one in each lane, with zeros around them: sums over places need no sum over lanes then.
struct Crowd {
  const Geometry& g;
  const Axes& axes;
  const Pitch pitch;
  const Floats memory;
  const Integers place, taps;  // of each input; of each tap, from the first on
  const Floats sums;           // LANES for each tap of each output

  Crowd(const Geometry& g, const Axes& axes, const Field&)
      : g(g), axes(axes), pitch{padded(axes.w) * LANES, padded(axes.h) * padded(axes.w) * LANES},
        memory(padded(axes.t) * pitch.frame), place(axes.inputs()), taps(axes.taps()), sums(g.outputs * axes.taps() * LANES) {
    int64_t* to = place.data;
    for (int64_t z = 0; z < axes.t.in; ++z) {
      for (int64_t y = 0; y < axes.h.in; ++y) {
        for (int64_t x = 0; x < axes.w.in; ++x) {
          *to++ = at({z + axes.t.padding, y + axes.h.padding, x + axes.w.padding});
        }
      }
    }
    for (int64_t t = 0; t < axes.taps(); ++t) taps.data[t] = at(axes.place(t));
  }

  // Whether few lanes stay empty, and all of it finds room in the second cache.
  static bool suits(const Geometry& g, const Axes& axes) {
    const int64_t size = padded(axes.t) * padded(axes.h) * padded(axes.w) * LANES;
    return 4 * g.C >= 3 * whole(g.C) && size * static_cast<int64_t>(sizeof(float)) <= CROWD_BYTES;
  }

  static int64_t padded(const Axis& axis) { return axis.in + 2 * axis.padding; }

  int64_t at(const Place& p) const { return p.z * pitch.frame + p.y * pitch.row + p.x * LANES; }

  void operator()(const float* x, const float* dy, float* dw, int64_t set, int64_t first, int64_t last) const;
};

// Sums over places of O gradients, from `dy` on, times what T taps see there; `sums` has LANES for each of the `taps` of
// each output; `more` are added to what is there.
template <int O, int T>
ALONE static void weigh(const Crowd& in, const int64_t* places, const float* dy, float* sums, int64_t taps, bool more) {
  const Axes& axes = in.axes;
  const int64_t apart = axes.outputs(), right = axes.w.stride * LANES;
  vec total[O * T] = {};
  if (more) {
    UNROLL for (int o = 0; o < O; ++o) {
      UNROLL for (int t = 0; t < T; ++t) total[o * T + t] = load(sums + (o * taps + t) * LANES);
    }
  }
  for (int64_t z = 0; z < axes.t.out; ++z) {
    for (int64_t y = 0; y < axes.h.out; ++y) {
      const float* seen = in.memory.data + in.at({z * axes.t.stride, y * axes.h.stride, 0});
      for (int64_t x = 0; x < axes.w.out; ++x, ++dy, seen += right) {
        vec own[O];
        UNROLL for (int o = 0; o < O; ++o) own[o] = every(dy[o * apart]);
        UNROLL for (int t = 0; t < T; ++t) {
          vec one = load(seen + places[t]);
          IN_REGISTER(one);
          UNROLL for (int o = 0; o < O; ++o) total[o * T + t] += one * own[o];
        }
      }
    }
  }
  UNROLL for (int o = 0; o < O; ++o) {
    UNROLL for (int t = 0; t < T; ++t) store(sums + (o * taps + t) * LANES, total[o * T + t]);
  }
}

using Weigh = void (*)(const Crowd&, const int64_t*, const float*, float*, int64_t, bool);

template <int O>
static Weigh weigh_of(int64_t taps) {
  if constexpr (O <= PULLED) {  // more have registers for FEW_TAPS only
    if (taps > FEW_TAPS) {
      return taps == 6 ? weigh<O, 6> : taps == 5 ? weigh<O, 5> : taps == 4 ? weigh<O, 4> : weigh<O, 3>;
    }
  }
  return taps == 2 ? weigh<O, 2> : weigh<O, 1>;
}

// `dw` of outputs `first` to `last` of one set, LANES inputs at a time.
inline void Crowd::operator()(const float* x, const float* dy, float* dw, int64_t set, int64_t first, int64_t last) const {
  const int64_t count = axes.taps(), parts = up(count, TAPS), inputs = axes.inputs(), outputs = axes.outputs();
  for (int64_t c = 0; c < g.C; c += LANES) {
    const int live = static_cast<int>(least(LANES, g.C - c));
    for (int64_t k = 0; k < g.together(); ++k) {
      const int64_t b = g.sample(set, k);
      gather(x + (b * g.C + c) * inputs, inputs, live, inputs, memory.data, place.data);
      for (int64_t o = first, some; o < last; o += some) {
        const bool few = count <= FEW_TAPS && last - o >= PULLED_BY_FEW;
        some = few ? PULLED_BY_FEW : last - o >= PULLED ? PULLED : 1;
        for (int64_t i = 0; i < parts; ++i) {
          const int64_t t = count * i / parts, these = count * (i + 1) / parts - t;
          const auto weigh_of_some = few ? weigh_of<PULLED_BY_FEW> : some == PULLED ? weigh_of<PULLED> : weigh_of<1>;
          const float* own = dy + (b * g.outputs + o) * outputs;
          weigh_of_some(these)(*this, taps.data + t, own, sums.data + (o * count + t) * LANES, count, k > 0);
        }
      }
    }
    for (int64_t o = first; o < last; ++o) {
      scatter(sums.data + o * count * LANES, dw + ((set * g.outputs + o) * g.C + c) * count, count, live, count);
    }
  }
}

// Which of the two serves.
template <class Use>
static void with_correlate(const Geometry& g, const Axes& axes, const Field& grad, const Use& use) {
  if (Crowd::suits(g, axes)) use(Crowd(g, axes, grad));
  else use(Correlation(g, axes, grad));
}

constexpr int64_t OUTPUTS_OF_A_JOB = 16;  // of a set that several samples share

static int64_t jobs(const Geometry& g) { return up(g.outputs, OUTPUTS_OF_A_JOB); }

// Jobs `first` to `last` of `sets * jobs`.
static void correlate_dense(const Geometry& g, const float* x, const float* dy, float* dw, int64_t first, int64_t last) {
  const Axes axes(g);
  const Field grad(gradient_field(g, axes));
  with_correlate(g, axes, grad, [&](const auto& correlate) {
    for (int64_t job = first; job < last; ++job) {
      const int64_t o = job % jobs(g) * OUTPUTS_OF_A_JOB;
      correlate(x, dy, dw, job / jobs(g), o, least(o + OUTPUTS_OF_A_JOB, g.outputs));
    }
  });
}
