// Depthwise convolution of one plane at a time, LANES neighbours of a row in a vector: the fastest way for the square
// kernels of 3, 5 and 7 with stride 1 where rows are not too short; `depthwise.h` serves the rest.
//
// A vector of inputs is read once for all the outputs of a column that see it: rows `dh` apart form a column, for a
// dilated kernel skips those between. Included once per instruction set, after `depthwise.h`.

static int64_t whole(int64_t n) { return up(n, LANES) * LANES; }

// A plane with zeros around it; its rows begin at whole vectors, so that only a tap beside the middle is read across
// two.
struct Sheet {
  const int64_t H, W, top, pitch;
  const Floats memory;
  float* const corner;  // the first of the zeros

  Sheet(int64_t H, int64_t W, int64_t top, int64_t left, int64_t rows, int64_t columns)
      : H(H), W(W), top(top), pitch(whole(columns)), memory(rows * pitch + LANES),
        corner(memory.data + whole(left) - left), plane_(corner + top * pitch + left) {}

  void draw(const float* plane) const {
    float* to = plane_;
    for (int64_t y = 0; y < H; ++y, plane += W, to += pitch) copy(to, plane, W);
  }

 private:
  float* const plane_;
};

// Where outputs look: the first tap of the first output, and the steps to the next row of taps and to the next tap.
// Handed on by reference: a copy on the stack is written in parts and read as a whole, which the processor waits for.
struct View {
  const float* first;
  int64_t down, right;
};

// Column `k` of a kernel, each value in every lane; turned by half a circle it is what the gradient of the input wants.
template <int K, bool Turned>
static INLINE void spread(const float* kernel, int k, vec* taps) {
  UNROLL for (int t = 0; t < K; ++t) taps[t] = every(Turned ? kernel[(K - t) * K - 1 - k] : kernel[t * K + k]);
}

// Planes that come next, those that will be written among them: while one is computed they are fetched, a line for each
// vector of output.
static INLINE void fetch(const float* p) { __builtin_prefetch(p, 0, 2); }

struct Next {
  const float *in, *out;

  Next at(int64_t i) const { return {in + i, out + i}; }
};

// Y rows of outputs, `down` apart; `next` are the same places in the next planes.
template <int K, int Y, bool Turned>
ALONE static void convolve_rows(const View& in, const float* kernel, int64_t W, float* out, int64_t down,
                                const Next& next) {
  for (int64_t i = 0; i < W; i += LANES) {
    const int64_t x = least(i, W - LANES);  // the last vector overlaps the one before
    vec total[Y] = {}, taps[K];
    UNROLL for (int y = 0; y < Y; ++y) fetch(next.in + y * down + x), fetch(next.out + y * down + x);
    const float* seen = in.first + x;
    for (int k = 0; k < K; ++k, seen += in.right) {
      spread<K, Turned>(kernel, k, taps);
      const float* row = seen;
      UNROLL for (int r = 0; r < Y + K - 1; ++r, row += in.down) {
        vec one = load(row);
        IN_REGISTER(one);
        UNROLL for (int y = 0; y < Y; ++y) {
          if (r >= y && r - y < K) total[y] += one * taps[r - y];
        }
      }
    }
    UNROLL for (int y = 0; y < Y; ++y) store(out + y * down + x, total[y]);
  }
}

// A plane of H x W.
template <int K, bool Turned>
static void convolve(const Sheet& in, const float* kernel, int64_t dh, int64_t dw, int64_t H, int64_t W, float* out,
                     const Next& next) {
  for (int64_t phase = 0; phase < least(dh, H); ++phase) {
    for (int64_t y = phase, rows; y < H; y += rows * dh) {
      rows = y + 7 * dh < H ? 8 : y + 3 * dh < H ? 4 : y + dh < H ? 2 : 1;
      const auto some = rows == 8 ? convolve_rows<K, 8, Turned> : rows == 4 ? convolve_rows<K, 4, Turned>
                      : rows == 2 ? convolve_rows<K, 2, Turned> : convolve_rows<K, 1, Turned>;
      some({in.corner + y * in.pitch, dh * in.pitch, dw}, kernel, W, out + y * W, dh * W, next.at(y * W));
    }
  }
}

struct NextGradients {
  const float *grad, *x, *dx;

  NextGradients at(int64_t i) const { return {grad + i, x + i, dx + i}; }
};

// Both gradients are sums over the same neighbours in `grad`: that of the input weighs them with the turned kernel, that
// of the weight with the input, whose Y rows (`down` apart) need no zeros around them. `sums` has LANES partial sums for
// each tap, in the order of the turned kernel. Without `Both` only that of the weight is wanted. `next` are the same
// places in the next planes.
template <int K, int Y, bool Both>
ALONE static void differentiate_rows(const View& grad, const float* kernel, int64_t W, const float* x, float* dx,
                                     int64_t down, float* sums, const NextGradients& next) {
  constexpr int X = K == 3 && LANES == 16 ? 3 : 1;  // columns of taps at a time: as registers allow
  constexpr bool all = X == K;                      // then their sums stay there
  vec sum[X * K], taps[X * K];
  if constexpr (all) UNROLL for (int t = 0; t < X * K; ++t) sum[t] = load(sums + t * LANES);
  for (int64_t i = 0; i < W; i += LANES) {
    const int64_t at = least(i, W - LANES);
    vec own[Y], total[Y] = {};
    UNROLL for (int y = 0; y < Y; ++y) {
      fetch(next.grad + y * down + at), fetch(next.x + y * down + at);
      if constexpr (Both) fetch(next.dx + y * down + at);
    }
    UNROLL for (int y = 0; y < Y; ++y) own[y] = from_lane(load(x + y * down + at), i - at);  // none counts twice
    for (int k = 0; k < K; k += X) {
      if constexpr (Both) UNROLL for (int c = 0; c < X; ++c) spread<K, true>(kernel, k + c, taps + c * K);
      if constexpr (!all) UNROLL for (int t = 0; t < X * K; ++t) sum[t] = load(sums + (k * K + t) * LANES);
      const float* row = grad.first + at + k * grad.right;
      UNROLL for (int r = 0; r < Y + K - 1; ++r, row += grad.down) {
        UNROLL for (int c = 0; c < X; ++c) {
          vec one = load(row + c * grad.right);
          IN_REGISTER(one);
          UNROLL for (int y = 0; y < Y; ++y) {
            const int t = r - y;
            if (t < 0 || t >= K) continue;
            if constexpr (Both) total[y] += one * taps[c * K + t];
            sum[c * K + t] += one * own[y];
          }
        }
      }
      if constexpr (!all) UNROLL for (int t = 0; t < X * K; ++t) store(sums + (k * K + t) * LANES, sum[t]);
    }
    if constexpr (Both) UNROLL for (int y = 0; y < Y; ++y) store(dx + y * down + at, total[y]);
  }
  if constexpr (all) UNROLL for (int t = 0; t < X * K; ++t) store(sums + t * LANES, sum[t]);
}

template <int K, bool Both>
static void differentiate(const Sheet& grad, const float* kernel, const Geometry& g, const float* x, float* dx,
                          float* sums, const NextGradients& next) {
  constexpr int MOST = K > 3 && LANES == 16 ? 8 : 4;  // rows at a time: as registers allow
  for (int64_t phase = 0; phase < least(g.dh, g.H); ++phase) {
    for (int64_t y = phase, rows; y < g.H; y += rows * g.dh) {
      rows = y + (MOST - 1) * g.dh < g.H ? MOST : y + 3 * g.dh < g.H ? 4 : 1;
      const auto some = rows == MOST ? differentiate_rows<K, MOST, Both>
                      : rows == 4    ? differentiate_rows<K, 4, Both> : differentiate_rows<K, 1, Both>;
      const View seen{grad.corner + y * grad.pitch, g.dh * grad.pitch, g.dw};
      some(seen, kernel, g.W, x + y * g.W, dx + y * g.W, g.dh * g.W, sums, next.at(y * g.W));
    }
  }
}

// The sums over lanes; those of a turned kernel, column by column.
template <int K>
static void total(const float* sums, float* weight) {
  UNROLL for (int first = 0; first < K * K; first += LANES) {
    vec m[LANES];
    UNROLL for (int l = 0; l < LANES; ++l) {
      const int turned = K * K - 1 - first - l;
      m[l] = turned < 0 ? vec{} : load(sums + (turned % K * K + turned / K) * LANES);
    }
    const vec all = sum_lanes(m);
    __builtin_memcpy(weight + first, &all, sizeof(float) * (K * K - first < LANES ? K * K - first : LANES));
  }
}

// Columns are so many that the last vector of a row sees zeros.
static Sheet input_sheet(const Geometry& g) {
  const int64_t columns = most(g.W + 2 * g.pw, whole(g.Wo) + (g.Kw - 1) * g.dw);
  return Sheet(g.H, g.W, g.ph, g.pw, g.H + 2 * g.ph, columns);
}

static Sheet gradient_sheet(const Geometry& g) {
  const int64_t top = (g.Kh - 1) * g.dh - g.ph, left = (g.Kw - 1) * g.dw - g.pw;
  const int64_t columns = most(left + whole(g.Wo), whole(g.W) + (g.Kw - 1) * g.dw);
  return Sheet(g.Ho, g.Wo, top, left, g.H + (g.Kh - 1) * g.dh, columns);
}

// Planes `first` to `last` of `B * C`.
template <int K>
static void forward_rows(const Geometry& g, const float* x, const float* weight, float* y, int64_t first, int64_t last) {
  const Sheet input(input_sheet(g));
  for (int64_t plane = first; plane < last; ++plane) {
    const int64_t next = least(plane + 1, last - 1);
    input.draw(x + plane * g.H * g.W);
    convolve<K, false>(input, weight + plane % g.C * K * K, g.dh, g.dw, g.Ho, g.Wo, y + plane * g.Ho * g.Wo,
                       {x + next * g.H * g.W, y + next * g.Ho * g.Wo});
  }
}

// Channels `first` to `last`. `dx` or `dw` may be null.
template <int K>
static void backward_rows(const Geometry& g, const float* x, const float* weight, const float* dy, float* dx, float* dw,
                          int64_t first, int64_t last) {
  const Sheet grad(gradient_sheet(g));
  const Floats sums(K * K * LANES);
  for (int64_t c = first; c < last; ++c) {
    const float* kernel = weight + c * K * K;
    for (int i = 0; i < K * K; ++i) store(sums.data + i * LANES, vec{});
    for (int64_t b = 0; b < g.B; ++b) {
      const int64_t plane = b * g.C + c, next = b + 1 < g.B ? plane + g.C : least(c + 1, last - 1);
      const float *own = x + plane * g.H * g.W, *own_next = x + next * g.H * g.W, *grad_next = dy + next * g.Ho * g.Wo;
      grad.draw(dy + plane * g.Ho * g.Wo);
      if (!dx) {
        differentiate<K, false>(grad, kernel, g, own, nullptr, sums.data, {grad_next, own_next, own_next});
        continue;
      }
      float *to = dx + plane * g.H * g.W, *to_next = dx + next * g.H * g.W;
      if (dw) differentiate<K, true>(grad, kernel, g, own, to, sums.data, {grad_next, own_next, to_next});
      else convolve<K, true>(grad, kernel, g.dh, g.dw, g.H, g.W, to, {grad_next, to_next});
    }
    if (dw) total<K>(sums.data, dw + c * K * K);
  }
}
