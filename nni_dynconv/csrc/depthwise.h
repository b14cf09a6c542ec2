// Depthwise convolution of LANES planes at a time, one in each lane of a vector: any kernel, stride and dilation costs
// the same per tap, neighbours need no unaligned loads, and the gradient of the weight needs no sum across lanes.
// Included once per instruction set, after `lanes.h`.

static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t up(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : 0; }  // ceil(a / b), at least 0

// LANES planes with zeros around them; offsets count floats.
struct Canvas {
  const int64_t H, W, top, left, pitch, size;
  const Floats memory;
  const Integers place;  // where each pixel of the plane is

  Canvas(int64_t H, int64_t W, int64_t top, int64_t left, int64_t rows, int64_t columns)
      : H(H), W(W), top(top), left(left), pitch(columns * LANES), size(rows * pitch), memory(size), place(H * W) {
    for (int64_t y = 0; y < H; ++y)
      for (int64_t x = 0; x < W; ++x) place.data[y * W + x] = at(y, x);
  }

  int64_t at(int64_t y, int64_t x) const { return (y + top) * pitch + (x + left) * LANES; }

  void draw(const float* plane, int live) const { gather(plane, H * W, live, H * W, memory.data, place.data); }
};

// Numbers from `first` to `last`.
struct Span {
  int64_t first, last;
};

// What is left of `count` numbers without those outside at either end.
template <class Outside>
static INLINE Span within(int64_t count, const Outside& outside) {
  Span span{0, count};
  while (span.first < span.last && outside(span.first)) ++span.first;
  while (span.first < span.last && outside(span.last - 1)) --span.last;
  return span;
}

// Steps through memory in two directions, in floats.
struct Steps {
  int64_t down, right;
};

// A grid of outputs that see the same taps, which are a grid too: output = sum of weight * canvas over the taps.
struct Grid {
  int64_t rows, columns, taps_down, taps_right;
  const Canvas* canvas;
  int64_t from, per_row, per_tap;  // the canvas's row that the first tap of the first output sees; rows per step from it
  const float* in;                 // where it sees
  int64_t out, weight;             // where the first output goes; its first weight
  Steps see, tap, pick, put;  // in the canvas per output and per tap; in the weights per tap; in the output per output

  // The rows of taps by which a row of outputs sees more than zeros.
  Span seen(int64_t row) const {
    const int64_t start = from + row * per_row - canvas->top;  // 0 to H - 1 are rows of the plane
    return within(taps_down, [&](int64_t i) { return start + i * per_tap < 0 || start + i * per_tap >= canvas->H; });
  }

  // X outputs beside each other; `Right` is `see.right` and `Taps` is `taps_right` where they are known.
  template <int X, int Right, int Taps>
  INLINE void block(const float* from, const float* weights, int64_t bands, float* to) const {
    const int64_t right = Right ? Right : see.right, n = Taps ? Taps : taps_right, over = tap.right, next = pick.right;
    vec total[X] = {};
    for (int64_t i = bands; i; --i, from += tap.down, weights += pick.down) {
      const float *seen = from, *weight = weights;
      UNROLL for (int64_t k = 0; k < n; ++k, seen += over, weight += next) {
        const vec one = load(weight);
        UNROLL for (int x = 0; x < X; ++x) total[x] += one * load(seen + x * right);
      }
    }
    for (int x = 0; x < X; ++x, to += put.right) store(to, total[x]);
  }

  template <int Right, int Taps>
  INLINE void row(const float* from, const float* weights, int64_t bands, float* to) const {
    int64_t x = 0;
    for (; x + 8 <= columns; x += 8) block<8, Right, Taps>(from + x * see.right, weights, bands, to + x * put.right);
    for (; x + 4 <= columns; x += 4) block<4, Right, Taps>(from + x * see.right, weights, bands, to + x * put.right);
    for (; x < columns; ++x) block<1, Right, Taps>(from + x * see.right, weights, bands, to + x * put.right);
  }

  template <int Right, int Taps>
  ALONE void all_of(const float* weights, int64_t first, int64_t last, float* to) const {
    for (int64_t y = first; y < last; ++y, to += put.down) {
      const Span band = seen(y);
      const float* from = in + y * see.down + band.first * tap.down;
      row<Right, Taps>(from, weights + band.first * pick.down, band.last - band.first, to);
    }
  }

  // Rows `first` to `last`; `to` is where row `first` of the whole output begins.
  void some(const float* weights, int64_t first, int64_t last, float* to) const {
    const int64_t end = least(last, rows);
    if (see.right != LANES) return all_of<0, 0>(weights + weight, first, end, to + out);
    if (taps_right == 3) return all_of<LANES, 3>(weights + weight, first, end, to + out);
    if (taps_right == 5) return all_of<LANES, 5>(weights + weight, first, end, to + out);
    all_of<LANES, 0>(weights + weight, first, end, to + out);
  }
};

// A whole output as grids: one for the forward; one per phase of the stride for the gradient of the input, where each
// phase sees its own subset of the taps. A strip of it stays in the cache until it is scattered to the planes.
struct Output {
  static constexpr int64_t STRIP = 8;  // rows of a grid in a strip
  const int64_t H, W, stride;          // `stride`: rows of the output per row of a grid
  const Integers memory;
  const Floats strip;
  Grid* const grid;
  int64_t grids = 0;

  Output(int64_t H, int64_t W, int64_t sh, int64_t sw)
      : H(H), W(W), stride(sh), memory(sh * sw * up(sizeof(Grid), sizeof(int64_t))), strip(STRIP * sh * W * LANES),
        grid(reinterpret_cast<Grid*>(memory.data)) {}

  void draw(const float* weights, float* planes, int live) const {
    for (int64_t y = 0; y * stride < H; y += STRIP) {
      for (int64_t i = 0; i < grids; ++i) grid[i].some(weights, y, y + STRIP, strip.data);
      scatter(strip.data, planes + y * stride * W, H * W, live, least(STRIP * stride, H - y * stride) * W);
    }
  }
};

static void plan_forward(const Geometry& g, const Canvas& canvas, Output& out) {
  Grid& grid = out.grid[out.grids++];
  grid.rows = g.Ho, grid.columns = g.Wo, grid.taps_down = g.Kh, grid.taps_right = g.Kw;
  grid.canvas = &canvas, grid.from = 0, grid.per_row = g.sh, grid.per_tap = g.dh;
  grid.in = canvas.memory.data, grid.out = 0, grid.weight = 0;
  grid.see = {g.sh * canvas.pitch, g.sw * LANES}, grid.tap = {g.dh * canvas.pitch, g.dw * LANES};
  grid.pick = {g.Kw * LANES, LANES}, grid.put = {g.Wo * LANES, LANES};
}

// Along one axis: input i took part in output (i + padding - k * dilation) / stride, for those k that make it whole.
struct Subset {
  int64_t first = 0, count = 0, step;  // of k
  int64_t at = 0, back;                // the output of the first, and a step back

  Subset(int64_t i, int64_t padding, int64_t dilation, int64_t stride, int64_t K) : step(1) {
    while (step * dilation % stride) ++step;
    back = step * dilation / stride;
    while (first < step && (i + padding - first * dilation) % stride) ++first;
    if (first == step) return;
    count = up(K - first, step), at = (i + padding - first * dilation) / stride;
  }

  int64_t tap(int64_t i) const { return first + i * step; }
  int64_t place(int64_t i) const { return at - i * back; }
};

static void plan_gradient(const Geometry& g, const Canvas& canvas, Output& out) {
  for (int64_t a = 0; a < least(g.sh, g.H); ++a) {
    for (int64_t b = 0; b < least(g.sw, g.W); ++b) {
      const Subset y(a, g.ph, g.dh, g.sh, g.Kh), x(b, g.pw, g.dw, g.sw, g.Kw);
      Grid& grid = out.grid[out.grids++];
      grid.rows = up(g.H - a, g.sh), grid.columns = up(g.W - b, g.sw);
      grid.taps_down = y.count, grid.taps_right = x.count;
      grid.canvas = &canvas, grid.from = y.at + canvas.top, grid.per_row = 1, grid.per_tap = -y.back;
      grid.in = canvas.memory.data + canvas.at(y.at, x.at), grid.out = (a * g.W + b) * LANES;
      grid.weight = (y.first * g.Kw + x.first) * LANES;
      grid.see = {canvas.pitch, LANES}, grid.tap = {-y.back * canvas.pitch, -x.back * LANES};
      grid.pick = {y.step * g.Kw * LANES, x.step * LANES}, grid.put = {g.sh * g.W * LANES, g.sw * LANES};
    }
  }
}

// Gradient of the weight: Y x X taps at a time, each a sum over the plane that stays in a register.
struct Weighing {
  const Geometry& g;
  const Canvas &input, &grad;
  float* out;  // Kh Kw LANES, added to

  template <int Y, int X>
  ALONE void taps(int64_t ky, int64_t kx) const {
    const int64_t down = g.dh * input.pitch, right = g.dw * LANES;
    vec total[Y][X];
    UNROLL for (int r = 0; r < Y; ++r) UNROLL for (int k = 0; k < X; ++k) total[r][k] = load(at(ky + r, kx + k));
    for (int64_t y = 0; y < g.Ho; ++y) {
      const float* pull = grad.memory.data + grad.at(y, 0);
      const float* seen = input.memory.data + y * g.sh * input.pitch + ky * down + kx * right;
      for (int64_t x = 0; x < g.Wo; ++x, pull += LANES, seen += g.sw * LANES) {
        const vec one = load(pull);
        UNROLL for (int r = 0; r < Y; ++r) UNROLL for (int k = 0; k < X; ++k) {
          total[r][k] += one * load(seen + r * down + k * right);
        }
      }
    }
    UNROLL for (int r = 0; r < Y; ++r) UNROLL for (int k = 0; k < X; ++k) store(at(ky + r, kx + k), total[r][k]);
  }

  float* at(int64_t ky, int64_t kx) const { return out + (ky * g.Kw + kx) * LANES; }

  // A band of Y kernel rows; as many columns at a time as there are registers.
  template <int Y, int X>
  void band(int64_t ky) const {
    int64_t kx = 0;
    for (; kx + X <= g.Kw; kx += X) taps<Y, X>(ky, kx);
    for (; kx + 2 <= g.Kw; kx += 2) taps<Y, 2>(ky, kx);
    for (; kx < g.Kw; ++kx) taps<Y, 1>(ky, kx);
  }

  void all() const {
    int64_t ky = 0;
    for (; ky + 5 <= g.Kh && g.Kh != 6; ky += 5) band<5, 3>(ky);
    for (; ky + 3 <= g.Kh; ky += 3) band<3, 3>(ky);
    for (; ky + 2 <= g.Kh; ky += 2) band<2, 5>(ky);
    for (; ky < g.Kh; ++ky) band<1, 7>(ky);
  }
};

static Canvas input_canvas(const Geometry& g) {
  return Canvas(g.H, g.W, g.ph, g.pw, g.H + 2 * g.ph, g.W + 2 * g.pw);
}

// The output's gradient, with so many zeros around that every input finds all the outputs it could have taken part in.
static Canvas gradient_canvas(const Geometry& g) {
  const int64_t top = up((g.Kh - 1) * g.dh - g.ph, g.sh), left = up((g.Kw - 1) * g.dw - g.pw, g.sw);
  const int64_t rows = top + most(g.Ho, (g.H - 1 + g.ph) / g.sh + 1);
  const int64_t columns = left + most(g.Wo, (g.W - 1 + g.pw) / g.sw + 1);
  return Canvas(g.Ho, g.Wo, top, left, rows, columns);
}

// Groups of LANES channels. Weights that are per sample count as `B * C` channels of one sample.
static int64_t groups(const Geometry& g) { return up(g.C, LANES); }
static int live(const Geometry& g, int64_t group) { return static_cast<int>(least(LANES, g.C - group * LANES)); }

// Jobs `first` to `last` of `B * groups`.
static void forward(const Geometry& g, const float* x, const float* weight, float* y, int64_t first, int64_t last) {
  const Canvas canvas(input_canvas(g));
  const int64_t taps = g.Kh * g.Kw;
  const Floats kernel(taps * LANES);
  Output output(g.Ho, g.Wo, 1, 1);
  plan_forward(g, canvas, output);
  for (int64_t job = first; job < last; ++job) {
    const int64_t group = job % groups(g), plane = job / groups(g) * g.C + group * LANES;
    gather(weight + group * LANES * taps, taps, live(g, group), taps, kernel.data, nullptr);
    canvas.draw(x + plane * g.H * g.W, live(g, group));
    output.draw(kernel.data, y + plane * g.Ho * g.Wo, live(g, group));
  }
}

// Groups `first` to `last`. `dx` or `dw` may be null.
static void backward(const Geometry& g, const float* x, const float* weight, const float* dy, float* dx, float* dw,
                     int64_t first, int64_t last) {
  const Canvas input(input_canvas(g)), grad(gradient_canvas(g));
  const int64_t taps = g.Kh * g.Kw;
  const Floats kernel(taps * LANES), sums(taps * LANES);
  Output output(g.H, g.W, g.sh, g.sw);
  plan_gradient(g, grad, output);
  for (int64_t group = first; group < last; ++group) {
    const int lanes = live(g, group);
    if (dx) gather(weight + group * LANES * taps, taps, lanes, taps, kernel.data, nullptr);
    for (int64_t i = 0; i < taps * LANES; ++i) sums.data[i] = 0;
    for (int64_t b = 0; b < g.B; ++b) {
      const int64_t plane = b * g.C + group * LANES;
      grad.draw(dy + plane * g.Ho * g.Wo, lanes);
      if (dx) output.draw(kernel.data, dx + plane * g.H * g.W, lanes);
      if (!dw) continue;
      input.draw(x + plane * g.H * g.W, lanes);
      Weighing{g, input, grad, sums.data}.all();
    }
    if (dw) scatter(sums.data, dw + group * LANES * taps, taps, lanes, taps);
  }
}
