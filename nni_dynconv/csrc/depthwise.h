// Depthwise convolution of one plane at a time. Included once per instruction set, each time in another namespace and
// with another LANES (floats in a vector), so it has no include guard and includes nothing.
//
// A plane is copied into a canvas: zero padded, and with stride s along the rows split into s interleaved phases, so
// that the inputs of neighbouring outputs are neighbours in memory for every stride. Each output is then a sum over
// taps (offset in the canvas, weight). Blocks of R rows x V vectors of outputs stay in registers.

typedef float vec __attribute__((vector_size(LANES * 4)));

static inline vec load(const float* p) {
  vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

static inline void store(float* p, vec v) { __builtin_memcpy(p, &v, sizeof v); }

static inline float sum(vec v) {
#if LANES == 4
  return (v[0] + v[2]) + (v[1] + v[3]);
#else
  typedef float quad __attribute__((vector_size(16)));
  quad total = {};
  UNROLL for (int i = 0; i < LANES; i += 4) total += quad{v[i], v[i + 1], v[i + 2], v[i + 3]};
  return (total[0] + total[2]) + (total[1] + total[3]);
#endif
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t up(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : 0; }  // ceil(a / b), at least 0

// A zero-padded copy of a plane. `top` and `left` are where the plane begins; negative: so much of it is cut off.
struct Canvas {
  int64_t top, left, rows, phases, width, pitch;  // width of one phase, pitch of one row
  float* data;

  Canvas(int64_t top, int64_t left, int64_t rows, int64_t columns, int64_t phases)
      : top(top), left(left), rows(rows), phases(phases), width(up(columns, phases) + 2 * LANES), pitch(width * phases) {}

  int64_t size() const { return rows * pitch + 2 * LANES; }
  int64_t at(int64_t row, int64_t column) const { return row * pitch + (column % phases) * width + column / phases; }

  void draw(const float* plane, int64_t H, int64_t W) {
    const int64_t first = most(0, -left), last = least(W, pitch - left);
    for (int64_t y = most(0, -top); y < least(H, rows - top); ++y) {
      const float* from = plane + y * W;
      if (phases == 1) {
        float* to = data + (y + top) * pitch + left;
        int64_t x = first;
        for (; x + LANES <= last; x += LANES) store(to + x, load(from + x));
        for (; x < last; ++x) to[x] = from[x];
      } else {
        draw_row(from, W, y + top);
      }
    }
  }

  void draw_row(const float* from, int64_t W, int64_t row) {
    for (int64_t phase = 0; phase < phases; ++phase) {
      int64_t x = (phase - left) % phases;  // the first column of the plane that falls into this phase
      if (x < 0) x += phases;
      if (x + left < 0) x += up(-left - x, phases) * phases;
      float* to = data + row * pitch + phase * width + (x + left) / phases;
      for (; x < W && x + left < phases * width; x += phases) *to++ = from[x];
    }
  }
};

// Where a block of outputs goes: `gap` between its rows; only `count` columns of a vector may be written.
template <int R, int V>
static inline void put(vec (&total)[R][V], float* out, int64_t gap, int64_t count) {
  if (count >= V * LANES) {
    UNROLL for (int r = 0; r < R; ++r) UNROLL for (int v = 0; v < V; ++v) store(out + r * gap + v * LANES, total[r][v]);
    return;
  }
  for (int r = 0; r < R; ++r) {
    float row[V * LANES];
    for (int v = 0; v < V; ++v) store(row + v * LANES, total[r][v]);
    for (int64_t x = 0; x < count; ++x) out[r * gap + x] = row[x];
  }
}

// K x K taps known when compiled. Rows of the block lie P input rows (of `down` floats) apart, so they share rows.
template <int K, int P>
struct Square {
  const float* weight;
  int64_t column[K];  // offset of each column of the kernel
  int64_t down;       // floats from one row of the kernel to the next

  template <int R, int V>
  inline __attribute__((always_inline)) void block(const float* in, float* out, int64_t gap, int64_t count) const {
    vec total[R][V] = {};
    UNROLL for (int i = 0; i < (R - 1) * P + K; ++i) {
      UNROLL for (int k = 0; k < K; ++k) {
        vec seen[V];
        UNROLL for (int v = 0; v < V; ++v) seen[v] = load(in + i * down + column[k] + v * LANES);
        UNROLL for (int r = 0; r < R; ++r) {
          const int ky = i - r * P;
          if (ky >= 0 && ky < K) {
            UNROLL for (int v = 0; v < V; ++v) total[r][v] += seen[v] * weight[ky * K + k];
          }
        }
      }
    }
    put<R, V>(total, out, gap, count);
  }
};

// Any list of taps. Rows of the block lie `rise` floats apart in the canvas.
struct Taps {
  const float* weight;
  const int64_t* offset;
  int64_t count_, rise;

  template <int R, int V>
  inline __attribute__((always_inline)) void block(const float* in, float* out, int64_t gap, int64_t count) const {
    vec total[R][V] = {};
    for (int64_t t = 0; t < count_; ++t) {
      UNROLL for (int r = 0; r < R; ++r) UNROLL for (int v = 0; v < V; ++v) {
        total[r][v] += load(in + r * rise + offset[t] + v * LANES) * weight[t];
      }
    }
    put<R, V>(total, out, gap, count);
  }
};

// All columns of R rows. A last vector that does not fit starts earlier and computes some outputs twice.
template <int R, int WIDE, class Kernel>
static inline void row_block(const Kernel& kernel, const float* in, float* out, int64_t gap, int64_t columns) {
  int64_t x = 0;
  for (; x + WIDE * LANES <= columns; x += WIDE * LANES) {
    kernel.template block<R, WIDE>(in + x, out + x, gap, WIDE * LANES);
  }
  for (; x < columns; x += LANES) {
    const int64_t begin = columns < LANES ? 0 : least(x, columns - LANES);
    kernel.template block<R, 1>(in + begin, out + begin, gap, columns);
  }
}

// `rows` x `columns` outputs: `rise` floats of the canvas and `gap` floats of the output from row to row.
template <class Kernel>
static void sweep(const Kernel& kernel, const float* in, int64_t rise, float* out, int64_t gap, int64_t rows, int64_t columns) {
  int64_t y = 0;
  for (; y + 4 <= rows; y += 4) row_block<4, 2>(kernel, in + y * rise, out + y * gap, gap, columns);
  for (; y + 2 <= rows; y += 2) row_block<2, 2>(kernel, in + y * rise, out + y * gap, gap, columns);
  for (; y < rows; ++y) row_block<1, 2>(kernel, in + y * rise, out + y * gap, gap, columns);
}

// How output rows fall into classes: rows `step` apart read input rows that are a whole number of dilations apart.
struct Classes {
  int64_t step, apart;  // output rows, and dilations, from one row of a class to the next
  Classes(int64_t stride, int64_t dilation) {
    int64_t a = stride, b = dilation;
    while (b) {
      const int64_t rest = a % b;
      a = b, b = rest;
    }
    step = dilation / a, apart = stride / a;
  }
};

template <int K, int P>
static void correlate_square(const Canvas& canvas, const float* weight, float* out, int64_t Ho, int64_t Wo, int64_t sh,
                             int64_t dh, int64_t dw, int64_t step) {
  Square<K, P> kernel;
  kernel.weight = weight;
  kernel.down = dh * canvas.pitch;
  for (int k = 0; k < K; ++k) kernel.column[k] = canvas.at(0, k * dw);
  for (int64_t y = 0; y < least(step, Ho); ++y) {
    sweep(kernel, canvas.data + y * sh * canvas.pitch, step * sh * canvas.pitch, out + y * Wo, step * Wo,
          up(Ho - y, step), Wo);
  }
}

static void correlate_any(const Canvas& canvas, const float* weight, int64_t* offset, float* out, const Geometry& g) {
  for (int64_t ky = 0; ky < g.Kh; ++ky)
    for (int64_t kx = 0; kx < g.Kw; ++kx) offset[ky * g.Kw + kx] = canvas.at(ky * g.dh, kx * g.dw);
  const int64_t rise = g.sh * canvas.pitch;
  sweep(Taps{weight, offset, g.Kh * g.Kw, rise}, canvas.data, rise, out, g.Wo, g.Ho, g.Wo);
}

// out[y][x] = sum of weight[ky][kx] * canvas[y * sh + ky * dh][x * sw + kx * dw]
static void correlate(const Canvas& canvas, const float* weight, int64_t* offset, float* out, const Geometry& g) {
  const Classes classes(g.sh, g.dh);
#define CASE(K, P)                                                                                          \
  if (g.Kh == K && g.Kw == K && classes.apart == P)                                                         \
    return correlate_square<K, P>(canvas, weight, out, g.Ho, g.Wo, g.sh, g.dh, g.dw, classes.step)
  CASE(3, 1);
  CASE(5, 1);
  CASE(7, 1);
  CASE(3, 2);
  CASE(5, 2);
  CASE(7, 2);
#undef CASE
  correlate_any(canvas, weight, offset, out, g);
}

// Gradient of the input for strides above 1: the inputs of each phase (row, column) see their own subset of the taps.
struct Scatter {
  const Geometry& g;
  const Canvas& canvas;  // of the output's gradient
  float *row, *weight;   // scratch: a row of one phase for 4 rows, and the taps' weights
  int64_t* offset;

  void plane(const float* kernel, float* out) const {
    for (int64_t a = 0; a < least(g.sh, g.H); ++a)
      for (int64_t b = 0; b < least(g.sw, g.W); ++b) phase(kernel, a, b, out);
  }

  // Taps for which (first + padding - k * dilation) is a multiple of the stride; their rows (columns) in the gradient.
  void phase(const float* kernel, int64_t a, int64_t b, float* out) const {
    int64_t count = 0;
    for (int64_t ky = 0; ky < g.Kh; ++ky) {
      const int64_t y = a + g.ph - ky * g.dh;
      if (y % g.sh) continue;
      for (int64_t kx = 0; kx < g.Kw; ++kx) {
        const int64_t x = b + g.pw - kx * g.dw;
        if (x % g.sw) continue;
        offset[count] = (y / g.sh + canvas.top) * canvas.pitch + x / g.sw + canvas.left;
        weight[count++] = kernel[ky * g.Kw + kx];
      }
    }
    const int64_t rows = up(g.H - a, g.sh), columns = up(g.W - b, g.sw);
    const Taps taps{weight, offset, count, canvas.pitch};
    for (int64_t y = 0; y < rows; y += 4) {
      const int64_t some = least(4, rows - y);
      sweep(taps, canvas.data + y * canvas.pitch, canvas.pitch, row, columns, some, columns);
      for (int64_t r = 0; r < some; ++r) {
        float* to = out + (a + (y + r) * g.sh) * g.W + b;
        for (int64_t x = 0; x < columns; ++x) to[x * g.sw] = row[r * columns + x];
      }
    }
  }
};

// Gradient of the weight, for Y rows and X columns of taps: each is a sum over the plane, kept in a register.
template <int Y, int X>
static inline void weigh(const Canvas& canvas, const float* grad, int64_t pitch, const Geometry& g, int64_t ky, int64_t kx,
                         float* out) {
  vec total[Y][X] = {};
  int64_t column[X];
  for (int k = 0; k < X; ++k) column[k] = canvas.at(0, (kx + k) * g.dw);
  const int64_t down = g.dh * canvas.pitch;
  for (int64_t y = 0; y < g.Ho; ++y) {
    const float* seen = canvas.data + y * g.sh * canvas.pitch + ky * down;
    for (int64_t x = 0; x < g.Wo; x += LANES) {
      const vec pull = load(grad + y * pitch + x);
      UNROLL for (int r = 0; r < Y; ++r) UNROLL for (int k = 0; k < X; ++k) {
        total[r][k] += load(seen + r * down + column[k] + x) * pull;
      }
    }
  }
  UNROLL for (int r = 0; r < Y; ++r) UNROLL for (int k = 0; k < X; ++k) {
    out[(ky + r) * g.Kw + kx + k] += sum(total[r][k]);
  }
}

// `grad`: rows of `pitch` floats, zero from Wo up to the next whole vector.
static void weigh_all(const Canvas& canvas, const float* grad, int64_t pitch, const Geometry& g, float* out) {
  int64_t ky = 0;
  if (g.Kw == 3)
    for (; ky + 3 <= g.Kh; ky += 3) weigh<3, 3>(canvas, grad, pitch, g, ky, 0, out);
  if (g.Kw == 5)
    for (; ky + 2 <= g.Kh; ky += 2) weigh<2, 5>(canvas, grad, pitch, g, ky, 0, out);
  for (; ky < g.Kh; ++ky) {
    int64_t kx = 0;
    for (; kx + 7 <= g.Kw; kx += 7) weigh<1, 7>(canvas, grad, pitch, g, ky, kx, out);
    for (; kx + 5 <= g.Kw; kx += 5) weigh<1, 5>(canvas, grad, pitch, g, ky, kx, out);
    for (; kx + 3 <= g.Kw; kx += 3) weigh<1, 3>(canvas, grad, pitch, g, ky, kx, out);
    for (; kx < g.Kw; ++kx) weigh<1, 1>(canvas, grad, pitch, g, ky, kx, out);
  }
}
