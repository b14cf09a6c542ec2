// Kernels that vary from place to place, which the channels of a group share; stride 1. Vectors lie along rows: those of
// a few taps' kernels stay in registers while the channels of the group go by. Included once per instruction set.

// Some rows of some planes, with zeros where there is nothing of them.
struct Panel {
  const int64_t rows, columns, pitch;
  const Floats memory;

  Panel(int64_t planes, int64_t rows, int64_t columns)
      : rows(rows), columns(columns), pitch(up(columns, LANES) * LANES), memory(planes * rows * pitch) {}

  int64_t plane() const { return rows * pitch; }

  // Element (0, 0) of plane `to` is element (top, left) of an H x W plane. What lies beside it stays as it is, zero: one
  // plane is drawn with one `left`.
  void draw(int64_t to, const float* from, int64_t H, int64_t W, int64_t top, int64_t left) const {
    const int64_t skipped = least(columns, most(0, -left)), start = most(0, left);
    const int64_t count = most(0, least(W - start, columns - skipped));
    float* row = memory.data + to * plane() + skipped;
    for (int64_t y = top; y < top + rows; ++y, row += pitch) {
      if (y >= 0 && y < H) {
        copy(row, from + y * W + start, count);
      } else {
        for (int64_t i = 0; i < count; ++i) row[i] = 0;
      }
    }
  }
};

// Where taps look from a place: rows of them `down` floats apart, and `right` from one to the next.
struct Reach {
  int64_t down, right;
};

// One vector of places, and R x C taps; `right` between taps is `D`, or, where that is 0, told. `next_...` are steps
// between planes.
template <int R, int C, int D>
ALONE static void map_taps(const float* kernel, int64_t next_tap, int64_t next_row, const float* seen, Reach reach,
                           int64_t next_seen, int64_t channels, float* out, int64_t next_out, bool more) {
  const int64_t right = D ? D : reach.right;
  vec weight[R][C];
  UNROLL for (int r = 0; r < R; ++r) UNROLL for (int k = 0; k < C; ++k) {
    weight[r][k] = load(kernel + r * next_row + k * next_tap);
  }
  for (int64_t c = 0; c < channels; ++c, seen += next_seen, out += next_out) {
    vec total = more ? load(out) : vec{};
    UNROLL for (int r = 0; r < R; ++r) UNROLL for (int k = 0; k < C; ++k) {
      total += weight[r][k] * load(seen + r * reach.down + k * right);
    }
    store(out, total);
  }
}

template <int R, int C, int D>
ALONE static void correlate_taps(const float* pull, int64_t next_pull, const float* seen, Reach reach, int64_t next_seen,
                                 int64_t channels, float* out, int64_t next_tap, int64_t next_row) {
  const int64_t right = D ? D : reach.right;
  vec total[R][C];
  UNROLL for (int r = 0; r < R; ++r) UNROLL for (int k = 0; k < C; ++k) total[r][k] = vec{};
  for (int64_t c = 0; c < channels; ++c, seen += next_seen, pull += next_pull) {
    const vec one = load(pull);
    UNROLL for (int r = 0; r < R; ++r) UNROLL for (int k = 0; k < C; ++k) {
      total[r][k] += one * load(seen + r * reach.down + k * right);
    }
  }
  UNROLL for (int r = 0; r < R; ++r) UNROLL for (int k = 0; k < C; ++k) {
    store(out + r * next_row + k * next_tap, total[r][k]);
  }
}

// So many rows of so many taps at a time that their vectors fit into registers.
static int64_t rows_at_once(int64_t columns) { return columns < 5 ? 3 : 2; }
static const int64_t COLUMNS_AT_ONCE = 7;

#define OF_ROWS(CALL, C)                                                  \
  if (rows == 1) return right == 1 ? CALL(1, C, 1) : CALL(1, C, 0);       \
  if (rows == 2) return right == 1 ? CALL(2, C, 1) : CALL(2, C, 0)
#define OF_MORE_ROWS(CALL, C) \
  OF_ROWS(CALL, C);           \
  return right == 1 ? CALL(3, C, 1) : CALL(3, C, 0)
#define EACH_SIZE(CALL)                        \
  switch (columns) {                           \
    case 1: OF_MORE_ROWS(CALL, 1);             \
    case 2: OF_MORE_ROWS(CALL, 2);             \
    case 3: OF_MORE_ROWS(CALL, 3);             \
    case 4: OF_MORE_ROWS(CALL, 4);             \
    case 5: OF_ROWS(CALL, 5); break;           \
    case 6: OF_ROWS(CALL, 6); break;           \
    default: OF_ROWS(CALL, 7);                 \
  }

// Calls `use(row, rows, column, columns)` for parts of a kernel.
template <class Use>
static void each_part(int64_t Kh, int64_t Kw, const Use& use) {
  for (int64_t j = 0; j < Kw; j += COLUMNS_AT_ONCE) {
    const int64_t columns = least(COLUMNS_AT_ONCE, Kw - j), step = rows_at_once(columns);
    for (int64_t i = 0; i < Kh; i += step) use(i, least(step, Kh - i), j, columns);
  }
}

// Calls `use(x)` for vectors that cover a row; the last one overlaps the one before.
template <class Use>
static void each_vector(int64_t width, const Use& use) {
  for (int64_t x = 0; x + LANES < width; x += LANES) use(x);
  use(most(0, width - LANES));
}

// What the three maps share: the sizes of one group, and strips of rows that stay in the cache.
struct Group {
  const Geometry& g;
  const int64_t channels, taps, across, down;  // `across`, `down`: how much further than its place a kernel reaches

  explicit Group(const Geometry& g)
      : g(g), channels(g.C / g.groups), taps(g.Kh * g.Kw), across((g.Kw - 1) * g.dw), down((g.Kh - 1) * g.dh) {}

  int64_t strip(int64_t height, int64_t width) const {
    const int64_t room = (1 << 15) / ((channels + taps) * (width + across));
    return least(height, most(8, room - down));
  }

  static int64_t wide(int64_t width) { return most(width, LANES); }
};

static void map_row(const Group& of, const float* kernel, int64_t next_tap, const float* seen, Reach reach,
                    int64_t next_seen, float* out, int64_t next_out, int64_t width) {
  const int64_t next_row = of.g.Kw * next_tap, right = reach.right;
  each_vector(width, [&](int64_t x) {
    each_part(of.g.Kh, of.g.Kw, [&](int64_t row, int64_t rows, int64_t column, int64_t columns) {
      const float* const from = seen + row * reach.down + column * right + x;
      const float* const own = kernel + row * next_row + column * next_tap + x;
#define CALL(R, C, D) \
  map_taps<R, C, D>(own, next_tap, next_row, from, reach, next_seen, of.channels, out + x, next_out, row + column > 0)
      EACH_SIZE(CALL)
#undef CALL
    });
  });
}

static void correlate_row(const Group& of, const float* pull, int64_t next_pull, const float* seen, Reach reach,
                          int64_t next_seen, float* out, int64_t next_tap, int64_t width) {
  const int64_t next_row = of.g.Kw * next_tap, right = reach.right;
  each_vector(width, [&](int64_t x) {
    each_part(of.g.Kh, of.g.Kw, [&](int64_t row, int64_t rows, int64_t column, int64_t columns) {
      const float* const from = seen + row * reach.down + column * right + x;
      float* const to = out + row * next_row + column * next_tap + x;
#define CALL(R, C, D) \
  correlate_taps<R, C, D>(pull + x, next_pull, from, reach, next_seen, of.channels, to, next_tap, next_row)
      EACH_SIZE(CALL)
#undef CALL
    });
  });
}

#undef EACH_SIZE
#undef OF_MORE_ROWS
#undef OF_ROWS

// Rows shorter than a vector are computed aside: `count` rows of `width` values, LANES apart.
static void put_aside(const float* aside, float* to, int64_t apart, int64_t count, int64_t width) {
  for (int64_t i = 0; i < count; ++i) copy(to + i * apart, aside + i * LANES, width);
}

// y of x and weight.
static void map_pixels(const Geometry& g, const float* x, const float* weight, float* y, int64_t first, int64_t last) {
  const Group of(g);
  const int64_t rows = of.strip(g.Ho, g.Wo), places = g.Ho * g.Wo;
  const bool narrow = g.Wo < LANES;
  const Panel seen(of.channels, rows + of.down, Group::wide(g.Wo) + of.across);
  const Panel kernels(narrow ? of.taps : 1, narrow ? rows : 1, LANES);
  const Floats aside(narrow ? of.channels * LANES : 1);
  const Reach reach = {g.dh * seen.pitch, g.dw};
  for (int64_t job = first; job < last; ++job) {
    const float* const own = weight + job * of.taps * places;
    for (int64_t top = 0; top < g.Ho; top += rows) {
      for (int64_t c = 0; c < of.channels; ++c) {
        seen.draw(c, x + (job * of.channels + c) * g.H * g.W, g.H, g.W, top - g.ph, -g.pw);
      }
      for (int64_t t = 0; narrow && t < of.taps; ++t) kernels.draw(t, own + t * places, g.Ho, g.Wo, top, 0);
      for (int64_t r = 0; r < least(rows, g.Ho - top); ++r) {
        const float* const from = seen.memory.data + r * seen.pitch;
        float* const to = y + job * of.channels * places + (top + r) * g.Wo;
        if (narrow) {
          map_row(of, kernels.memory.data + r * kernels.pitch, kernels.plane(), from, reach, seen.plane(), aside.data,
                  LANES, g.Wo);
          put_aside(aside.data, to, places, of.channels, g.Wo);
        } else {
          map_row(of, own + (top + r) * g.Wo, places, from, reach, seen.plane(), to, places, g.Wo);
        }
      }
    }
  }
}

// The gradient of x, of dy and weight: each tap's kernels are laid where they meet the input, in
// turned order.
static void spread_pixels(const Geometry& g, const float* dy, const float* weight, float* dx, int64_t first, int64_t last) {
  const Group of(g);
  const int64_t rows = of.strip(g.H, g.W), places = g.Ho * g.Wo, size = g.H * g.W;
  const bool narrow = g.W < LANES;
  const Panel pulls(of.channels, rows + of.down, Group::wide(g.W) + of.across);
  const Panel kernels(of.taps, rows, Group::wide(g.W));
  const Floats aside(narrow ? of.channels * LANES : 1);
  const Reach reach = {g.dh * pulls.pitch, g.dw};
  for (int64_t job = first; job < last; ++job) {
    for (int64_t top = 0; top < g.H; top += rows) {
      for (int64_t c = 0; c < of.channels; ++c) {
        pulls.draw(c, dy + (job * of.channels + c) * places, g.Ho, g.Wo, top + g.ph - of.down, g.pw - of.across);
      }
      for (int64_t t = 0; t < of.taps; ++t) {
        const float* const own = weight + (job * of.taps + t) * places;
        kernels.draw(of.taps - 1 - t, own, g.Ho, g.Wo, top + g.ph - t / g.Kw * g.dh, g.pw - t % g.Kw * g.dw);
      }
      for (int64_t r = 0; r < least(rows, g.H - top); ++r) {
        float* const to = dx + job * of.channels * size + (top + r) * g.W;
        map_row(of, kernels.memory.data + r * kernels.pitch, kernels.plane(), pulls.memory.data + r * pulls.pitch,
                reach, pulls.plane(), narrow ? aside.data : to, narrow ? LANES : size, g.W);
        if (narrow) put_aside(aside.data, to, size, of.channels, g.W);
      }
    }
  }
}

// The gradient of weight, of x and dy.
static void correlate_pixels(const Geometry& g, const float* x, const float* dy, float* dw, int64_t first, int64_t last) {
  const Group of(g);
  const int64_t rows = of.strip(g.Ho, g.Wo), places = g.Ho * g.Wo;
  const bool narrow = g.Wo < LANES;
  const Panel seen(of.channels, rows + of.down, Group::wide(g.Wo) + of.across);
  const Panel pulls(narrow ? of.channels : 1, narrow ? rows : 1, LANES);
  const Floats aside(narrow ? of.taps * LANES : 1);
  const Reach reach = {g.dh * seen.pitch, g.dw};
  for (int64_t job = first; job < last; ++job) {
    const float* const own = dy + job * of.channels * places;
    for (int64_t top = 0; top < g.Ho; top += rows) {
      for (int64_t c = 0; c < of.channels; ++c) {
        seen.draw(c, x + (job * of.channels + c) * g.H * g.W, g.H, g.W, top - g.ph, -g.pw);
        if (narrow) pulls.draw(c, own + c * places, g.Ho, g.Wo, top, 0);
      }
      for (int64_t r = 0; r < least(rows, g.Ho - top); ++r) {
        const float* const from = seen.memory.data + r * seen.pitch;
        float* const to = dw + job * of.taps * places + (top + r) * g.Wo;
        if (narrow) {
          correlate_row(of, pulls.memory.data + r * pulls.pitch, pulls.plane(), from, reach, seen.plane(), aside.data,
                        LANES, g.Wo);
          put_aside(aside.data, to, places, of.taps, g.Wo);
        } else {
          correlate_row(of, own + (top + r) * g.Wo, places, from, reach, seen.plane(), to, places, g.Wo);
        }
      }
    }
  }
}
