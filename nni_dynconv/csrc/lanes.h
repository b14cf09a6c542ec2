// Vectors of LANES floats, and moving LANES planes between memory and a form with one plane in each lane. Included once
// per instruction set, each time in another namespace, so it has no include guard and includes nothing.

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t mask __attribute__((vector_size(LANES * 4)));

static INLINE vec load(const float* p) {  // from anywhere
  vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

// In every lane. `+` instead of `-` would turn -0 into 0, which costs an addition.
static INLINE vec every(float v) { return v - vec{}; }

static INLINE void store(float* p, vec v) { __builtin_memcpy(p, &v, sizeof v); }

// A row of any length.
static INLINE void copy(float* to, const float* from, int64_t n) {
  if (n >= LANES) {
    for (int64_t i = 0; i < n - LANES; i += LANES) store(to + i, load(from + i));
    store(to + n - LANES, load(from + n - LANES));  // overlaps the one before
  } else if (n >= 4) {
    for (int64_t i = 0; i < n - 4; i += 4) __builtin_memcpy(to + i, from + i, 16);
    __builtin_memcpy(to + n - 4, from + n - 4, 16);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = from[i];
  }
}

// Keeps the compiler from reading a vector of memory anew wherever it is used: most such reads span two lines of cache.
#if defined(__x86_64__) && LANES == 16
#define IN_REGISTER(v) asm("" : "+v"(v))
#elif defined(__x86_64__)
#define IN_REGISTER(v) asm("" : "+x"(v))
#else
#define IN_REGISTER(v)
#endif

// The lanes from `first` on, and zeros before them.
static INLINE vec from_lane(vec v, int64_t first) {
  mask number;
  UNROLL for (int l = 0; l < LANES; ++l) number[l] = l;
  return reinterpret_cast<vec>(reinterpret_cast<mask>(v) & (number >= static_cast<int32_t>(first)));
}

// Two vectors into one: elements of `a` are 0 to LANES - 1, those of `b` follow.
#if defined(__clang__)
#define PICK4(a, b, w, x, y, z) __builtin_shufflevector(a, b, w, x, y, z)
#define PICK8(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define PICK16(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK4(a, b, ...) __builtin_shuffle(a, b, mask{__VA_ARGS__})
#define PICK8(a, b, ...) __builtin_shuffle(a, b, mask{__VA_ARGS__})
#define PICK16(a, b, ...) __builtin_shuffle(a, b, mask{__VA_ARGS__})
#endif

// Within each four lanes: (a0 b0 a1 b1), (a2 b2 a3 b3), (a0 a1 b0 b1), (a2 a3 b2 b3).
#if LANES == 4
#define LOW1(a, b) PICK4(a, b, 0, 4, 1, 5)
#define HIGH1(a, b) PICK4(a, b, 2, 6, 3, 7)
#define LOW2(a, b) PICK4(a, b, 0, 1, 4, 5)
#define HIGH2(a, b) PICK4(a, b, 2, 3, 6, 7)
#elif LANES == 8
#define LOW1(a, b) PICK8(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH1(a, b) PICK8(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define LOW2(a, b) PICK8(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH2(a, b) PICK8(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define LOW4(a, b) PICK8(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define HIGH4(a, b) PICK8(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#else
#define LOW1(a, b) PICK16(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define HIGH1(a, b) PICK16(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define LOW2(a, b) PICK16(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define HIGH2(a, b) PICK16(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define LOW4(a, b) PICK16(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
#define HIGH4(a, b) PICK16(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31)
#define LOW8(a, b) PICK16(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define HIGH8(a, b) PICK16(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#endif

// LANES vectors as the rows of a matrix: afterwards as its columns.
static INLINE void transpose(vec (&m)[LANES]) {
  UNROLL for (int i = 0; i < LANES; i += 4) {
    const vec a = LOW1(m[i], m[i + 1]), b = HIGH1(m[i], m[i + 1]);
    const vec c = LOW1(m[i + 2], m[i + 3]), d = HIGH1(m[i + 2], m[i + 3]);
    m[i] = LOW2(a, c), m[i + 1] = HIGH2(a, c), m[i + 2] = LOW2(b, d), m[i + 3] = HIGH2(b, d);
  }
#if LANES > 4
  UNROLL for (int i = 0; i < LANES; ++i) {
    if (i & 4) continue;
    const vec a = m[i], b = m[i + 4];
    m[i] = LOW4(a, b), m[i + 4] = HIGH4(a, b);
  }
#endif
#if LANES > 8
  UNROLL for (int i = 0; i < LANES; ++i) {
    if (i & 8) continue;
    const vec a = m[i], b = m[i + 8];
    m[i] = LOW8(a, b), m[i + 8] = HIGH8(a, b);
  }
#endif
}

// A vector whose lane l is the sum of all lanes of vector l.
static INLINE vec sum_lanes(vec (&m)[LANES]) {
  UNROLL for (int i = 0; i < LANES; i += 2) m[i] = LOW1(m[i], m[i + 1]) + HIGH1(m[i], m[i + 1]);
  UNROLL for (int i = 0; i < LANES; i += 4) m[i] = LOW2(m[i], m[i + 2]) + HIGH2(m[i], m[i + 2]);
#if LANES > 4
  UNROLL for (int i = 0; i < LANES; i += 8) m[i] = LOW4(m[i], m[i + 4]) + HIGH4(m[i], m[i + 4]);
#endif
#if LANES > 8
  m[0] = LOW8(m[0], m[8]) + HIGH8(m[0], m[8]);
#endif
  return m[0];
}

#undef PICK4
#undef PICK8
#undef PICK16
#undef LOW1
#undef HIGH1
#undef LOW2
#undef HIGH2
#undef LOW4
#undef HIGH4
#undef LOW8
#undef HIGH8

// `count` elements of each plane; planes are `apart` floats from each other, of which the first `live` exist. Element i
// of all planes goes to `to + place[i]`, or to `to + i * LANES` without `place`. The planes behind them, which come next,
// are fetched.
static void gather(const float* from, int64_t apart, int live, int64_t count, float* to, const int64_t* place) {
  for (int64_t i = 0; i < count; i += LANES) {
    if (count < LANES) {
      for (int64_t k = 0; k < count; ++k)
        for (int l = 0; l < live; ++l) to[(place ? place[k] : k * LANES) + l] = from[l * apart + k];
      return;
    }
    const int64_t begin = i + LANES <= count ? i : count - LANES;
    vec m[LANES];
    UNROLL for (int l = 0; l < LANES; ++l) __builtin_prefetch(from + (l + LANES) * apart + begin, 0, 3);
    UNROLL for (int l = 0; l < LANES; ++l) m[l] = load(from + (l < live ? l : live - 1) * apart + begin);
    transpose(m);
    if (place) {
      UNROLL for (int k = 0; k < LANES; ++k) store(to + place[begin + k], m[k]);
    } else {
      UNROLL for (int k = 0; k < LANES; ++k) store(to + (begin + k) * LANES, m[k]);
    }
  }
}

// The way back: element i of all planes comes from `from + i * LANES`.
static void scatter(const float* from, float* to, int64_t apart, int live, int64_t count) {
  if (count < LANES) {
    for (int64_t k = 0; k < count; ++k)
      for (int l = 0; l < live; ++l) to[l * apart + k] = from[k * LANES + l];
    return;
  }
  for (int64_t i = 0; i < count; i += LANES) {
    const int64_t begin = i + LANES <= count ? i : count - LANES;
    vec m[LANES];
    UNROLL for (int l = 0; l < LANES; ++l) __builtin_prefetch(to + (l + LANES) * apart + begin, 0, 2);
    UNROLL for (int k = 0; k < LANES; ++k) m[k] = load(from + (begin + k) * LANES);
    transpose(m);
    if (live == LANES) {
      UNROLL for (int l = 0; l < LANES; ++l) store(to + l * apart + begin, m[l]);
    } else {
      for (int l = 0; l < live; ++l) store(to + l * apart + begin, m[l]);
    }
  }
}
