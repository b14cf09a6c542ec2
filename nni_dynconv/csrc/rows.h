// Depthwise convolution of one plane at a time, LANES neighbours of a row in a vector: the fastest way for the square
// kernels of 3, 5 and 7 with stride 1 where rows are not too short; `depthwise.h` serves the rest.
//
// A vector of inputs is read once for all the outputs of a column that see it: rows `dh` apart form a column, for a
// dilated kernel skips those between. Included once per instruction set, after `depthwise.h`.

// A plane with zeros around it.
struct Sheet {
  const int64_t H, W, left, top, pitch;
  const Floats memory;

  Sheet(int64_t H, int64_t W, int64_t top, int64_t left, int64_t rows, int64_t pitch)
      : H(H), W(W), left(left), top(top), pitch(pitch), memory(rows * pitch) {}

  float* at(int64_t y, int64_t x) const { return memory.data + (y + top) * pitch + x + left; }

  void draw(const float* plane) const {
    float* to = at(0, 0);
    for (int64_t y = 0; y < H; ++y, plane += W, to += pitch) {
      for (int64_t x = 0; x + LANES < W; x += LANES) store(to + x, load(plane + x));
      store(to + W - LANES, load(plane + W - LANES));
    }
  }
};

// Where outputs look: the first tap of the first output, and the steps to the next row of taps and to the next tap.
struct View {
  const float* first;
  int64_t down, right;
};

// A kernel whose every value fills a vector, column by column; turned by half a circle for the gradient of the input.
template <int K>
static void spread(const float* weight, bool turned, float* to) {
  for (int x = 0; x < K; ++x) {
    for (int y = 0; y < K; ++y, to += LANES) {
      const int tap = y * K + x;
      store(to, vec{} + weight[turned ? K * K - 1 - tap : tap]);
    }
  }
}

// Where outputs go: planes of H x W. An output larger than the cache is written past it: it would only push out what is
// about to be read, and each of its lines would be read before it is written.
struct Target {
  static constexpr int64_t LARGE = 16 << 20;  // bytes
  const int64_t H, W;
  float* const planes;
  const bool streams;

  Target(const Geometry& g, int64_t H, int64_t W, float* planes)
      : H(H), W(W), planes(planes), streams(g.B * g.C * H * W * 4 > LARGE && W % LANES == 0 &&
                                            reinterpret_cast<uintptr_t>(planes) % (LANES * 4) == 0) {}
  ~Target() {
    if (streams) arrive();
  }
};

// Y rows of outputs, `down` apart.
template <int K, int Y>
ALONE static void convolve_rows(View in, const float* kernel, int64_t W, float* out, int64_t down, bool streams) {
  for (int64_t i = 0; i < W; i += LANES) {
    const int64_t x = least(i, W - LANES);  // the last vector overlaps the one before
    vec total[Y] = {};
    const float *seen = in.first + x, *weights = kernel;
    for (int k = 0; k < K; ++k, seen += in.right, weights += K * LANES) {
      const float* row = seen;
      UNROLL for (int r = 0; r < Y + K - 1; ++r, row += in.down) {
        const vec one = load(row);
        UNROLL for (int y = 0; y < Y; ++y) {
          if (r >= y && r - y < K) total[y] += one * load(weights + (r - y) * LANES);
        }
      }
    }
    if (streams) {
      UNROLL for (int y = 0; y < Y; ++y) stream(out + y * down + x, total[y]);
    } else {
      UNROLL for (int y = 0; y < Y; ++y) store(out + y * down + x, total[y]);
    }
  }
}

template <int K>
static void convolve(const Sheet& in, const float* kernel, int64_t dh, int64_t dw, const Target& to, int64_t plane) {
  float* out = to.planes + plane * to.H * to.W;
  for (int64_t phase = 0; phase < least(dh, to.H); ++phase) {
    for (int64_t y = phase, rows; y < to.H; y += rows * dh) {
      rows = y + 7 * dh < to.H ? 8 : y + 3 * dh < to.H ? 4 : y + dh < to.H ? 2 : 1;
      const auto some = rows == 8 ? convolve_rows<K, 8> : rows == 4 ? convolve_rows<K, 4>
                      : rows == 2 ? convolve_rows<K, 2> : convolve_rows<K, 1>;
      const View view{in.memory.data + y * in.pitch, dh * in.pitch, dw};
      some(view, kernel, to.W, out + y * to.W, dh * to.W, to.streams);
    }
  }
}

// X columns of taps: `sums` (LANES partial sums for each tap) grow by input times gradient, Y rows at a time, from row
// `y` on. Returns the first row that is left.
template <int K, int X, int Y>
ALONE static int64_t weigh_rows(View in, View grad, int64_t dh, int64_t y, int64_t H, int64_t W, float* sums) {
  vec total[X][K];
  UNROLL for (int k = 0; k < X; ++k) UNROLL for (int t = 0; t < K; ++t) total[k][t] = load(sums + (t * K + k) * LANES);
  for (; y + (Y - 1) * dh < H; y += Y * dh) {
    for (int64_t x = 0; x < W; x += LANES) {
      vec pull[Y];
      UNROLL for (int r = 0; r < Y; ++r) pull[r] = load(grad.first + (y + r * dh) * grad.down + x);
      UNROLL for (int k = 0; k < X; ++k) {
        const float* row = in.first + y * in.down + x + k * in.right;
        UNROLL for (int r = 0; r < Y + K - 1; ++r, row += dh * in.down) {
          const vec one = load(row);
          UNROLL for (int t = 0; t < K; ++t) {
            if (r >= t && r - t < Y) total[k][t] += one * pull[r - t];
          }
        }
      }
    }
  }
  UNROLL for (int k = 0; k < X; ++k) UNROLL for (int t = 0; t < K; ++t) store(sums + (t * K + k) * LANES, total[k][t]);
  return y;
}

template <int K, int X>
static void weigh_columns(View in, View grad, int64_t dh, int64_t H, int64_t W, float* sums) {
  for (int64_t phase = 0; phase < least(dh, H); ++phase) {
    int64_t y = phase;
    if (y + 3 * dh < H) y = weigh_rows<K, X, 4>(in, grad, dh, y, H, W, sums);
    if (y < H) weigh_rows<K, X, 1>(in, grad, dh, y, H, W, sums);
  }
}

// Every tap: as many columns at a time as there are registers for their sums.
template <int K>
static void weigh(const Sheet& in, const Sheet& grad, int64_t dh, int64_t dw, float* sums) {
  constexpr int X = K == 3 ? 3 : K == 5 ? 2 : 1;
  const View pull{grad.at(0, 0), grad.pitch, 1};
  for (int k = 0; k + X <= K; k += X) {
    weigh_columns<K, X>({in.memory.data + k * dw, in.pitch, dw}, pull, dh, grad.H, grad.W, sums + k * LANES);
  }
  if (K % X) {
    constexpr int last = K - K % X;
    weigh_columns<K, K % X ? K % X : 1>({in.memory.data + last * dw, in.pitch, dw}, pull, dh, grad.H, grad.W,
                                        sums + last * LANES);
  }
}

// The sums over lanes.
template <int K>
static void total(const float* sums, float* weight) {
  for (int first = 0; first < K * K; first += LANES) {
    vec m[LANES], all = {};
    UNROLL for (int l = 0; l < LANES; ++l) m[l] = load(sums + (first + l) * LANES);
    transpose(m);
    UNROLL for (int l = 0; l < LANES; ++l) all += m[l];
    __builtin_memcpy(weight + first, &all, sizeof(float) * (K * K - first < LANES ? K * K - first : LANES));
  }
}

static int64_t whole(int64_t n) { return up(n, LANES) * LANES; }

// Columns are so many that the last vector of a row sees zeros.
static Sheet input_sheet(const Geometry& g) {
  const int64_t pitch = most(g.W + 2 * g.pw, whole(g.Wo) + (g.Kw - 1) * g.dw);
  return Sheet(g.H, g.W, g.ph, g.pw, g.H + 2 * g.ph, pitch);
}

static Sheet gradient_sheet(const Geometry& g) {
  const int64_t top = (g.Kh - 1) * g.dh - g.ph, left = (g.Kw - 1) * g.dw - g.pw;
  const int64_t pitch = most(left + whole(g.Wo), g.W + (g.Kw - 1) * g.dw);
  return Sheet(g.Ho, g.Wo, top, left, g.H + (g.Kh - 1) * g.dh, pitch);
}

// Planes `first` to `last` of `B * C`.
template <int K>
static void forward_rows(const Geometry& g, const float* x, const float* weight, float* y, int64_t first, int64_t last) {
  const Sheet input(input_sheet(g));
  const Floats kernel(K * K * LANES);
  const Target output(g, g.Ho, g.Wo, y);
  for (int64_t plane = first; plane < last; ++plane) {
    input.draw(x + plane * g.H * g.W);
    spread<K>(weight + plane % g.C * K * K, false, kernel.data);
    convolve<K>(input, kernel.data, g.dh, g.dw, output, plane);
  }
}

// Channels `first` to `last`. `dx` or `dw` may be null.
template <int K>
static void backward_rows(const Geometry& g, const float* x, const float* weight, const float* dy, float* dx, float* dw,
                          int64_t first, int64_t last) {
  const Sheet input(input_sheet(g)), grad(gradient_sheet(g));
  const Floats kernel(K * K * LANES), sums(whole(K * K) * LANES);
  const Target output(g, g.H, g.W, dx);
  for (int64_t c = first; c < last; ++c) {
    if (dx) spread<K>(weight + c * K * K, true, kernel.data);
    for (int i = 0; i < K * K; ++i) store(sums.data + i * LANES, vec{});
    for (int64_t b = 0; b < g.B; ++b) {
      const int64_t plane = b * g.C + c;
      grad.draw(dy + plane * g.Ho * g.Wo);
      if (dx) convolve<K>(grad, kernel.data, g.dh, g.dw, output, plane);
      if (!dw) continue;
      input.draw(x + plane * g.H * g.W);
      weigh<K>(input, grad, g.dh, g.dw, sums.data);
    }
    if (dw) total<K>(sums.data, dw + c * K * K);
  }
}
