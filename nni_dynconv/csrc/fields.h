// What lies where in the convolutions of `dense.h`: rows of a plane one behind the other with the zeros between them,
// so that no row is too short for vectors; with a stride, places that are as many apart side by side: a plane is dealt
// out to phases, and each tap sees one of them without gaps.
//
// Included once per instruction set, after `rows.h`.

// One axis of a convolution: sizes of input, output and kernel; stride, padding, dilation.
struct Axis {
  int64_t in, out, K, stride, padding, dilation;

  int64_t reach() const { return (K - 1) * dilation; }
  int64_t last() const { return (in - 1 + padding) / stride; }  // the place of the last input in its phase
  int64_t seen() const { return most(out + reach() / stride, last() + 1); }  // places of a phase of the input
  int64_t before() const { return up(reach() - padding, stride); }           // zeros before the gradient of the output
  int64_t pulled() const { return before() + most(out, last() + 1); }        // places of that gradient

  // From one row to the next: the zeros behind a row are those before the next one.
  int64_t row() const {
    return most(most(seen() - padding / stride, last() + 1), most(pulled() - before(), before() + out));
  }
};

// Frame, row and column.
struct Place {
  int64_t z, y, x;
};

struct Axes {
  const Axis t, h, w;

  explicit Axes(const Geometry& g)
      : t{g.T, g.To, g.Kt, g.st, g.pt, g.dt}, h{g.H, g.Ho, g.Kh, g.sh, g.ph, g.dh}, w{g.W, g.Wo, g.Kw, g.sw, g.pw, g.dw} {}

  int64_t taps() const { return t.K * h.K * w.K; }
  int64_t phases() const { return t.stride * h.stride * w.stride; }
  int64_t inputs() const { return t.in * h.in * w.in; }
  int64_t outputs() const { return t.out * h.out * w.out; }

  // Where a tap lies, seen from the first one.
  Place place(int64_t tap) const {
    return {tap / w.K / h.K * t.dilation, tap / w.K % h.K * h.dilation, tap % w.K * w.dilation};
  }
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
      : t(t), h(h), w(w), pitch(pitch), C(C), phase(whole(frames * pitch.frame + w.before) + LANES),
        plane(phase * t.phases * h.phases * w.phases), memory(C * plane + 2 * LANES),
        origin(memory.data + (plane == phase ? whole(before()) - before() : 0)) {}

  int64_t before() const { return t.before * pitch.frame + h.before * pitch.row + w.before; }

  // Of a plane with its zeros.
  int64_t at(const Place& p) const {
    const int64_t number = (p.z % t.phases * h.phases + p.y % h.phases) * w.phases + p.x % w.phases;
    return number * phase + p.z / t.phases * pitch.frame + p.y / h.phases * pitch.row + p.x / w.phases;
  }

  // Twice the same planes is once.
  void draw(const float* x) const {
    if (x == drawn_) return;
    drawn_ = x;
    float* to = origin;
    for (int64_t i = 0; i < t.phases; ++i) {
      for (int64_t j = 0; j < h.phases; ++j) {
        for (int64_t k = 0; k < w.phases; ++k, to += phase) deal(x, t.first(i), h.first(j), w.first(k), to);
      }
    }
  }

 private:
  mutable const float* drawn_ = nullptr;

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
          else if (w.phases == 2) for (int64_t i = 0; i < n; ++i) row[i] = from[i * 2];  // known: by whole vectors
          else for (int64_t i = 0; i < n; ++i) row[i] = from[i * w.phases];
        }
      }
    }
  }
};

// Inputs and gradients of outputs have their rows, and their frames, equally far apart: what is seen from a place is as
// far from it in both.
static Pitch common_pitch(const Axes& axes) {
  return {axes.w.row(), most(axes.h.seen(), axes.h.pulled()) * axes.w.row()};
}

static Field input_field(const Geometry& g, const Axes& axes) {
  const auto along = [](const Axis& axis) { return Along{axis.in, axis.padding, axis.stride}; };
  return Field(g.C, along(axes.t), along(axes.h), along(axes.w), axes.t.seen(), common_pitch(axes));
}

static Field gradient_field(const Geometry& g, const Axes& axes) {
  const auto along = [](const Axis& axis) { return Along{axis.out, axis.before(), 1}; };
  return Field(g.outputs, along(axes.t), along(axes.h), along(axes.w), axes.t.pulled(), common_pitch(axes));
}

// The taps that an output sees, frame by frame: where, from its own place on, and which weight; and how far apart
// weights are: of the next output, of the next input.
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

  Seen of_frames(int64_t first, int64_t last) const {
    const Span span = within(count_, [&](int64_t i) { return frames_.data[i] < first || frames_.data[i] >= last; });
    return {places_.data + span.first, taps_.data + span.first, span.last - span.first};
  }

  int64_t place(int64_t i) const { return places_.data[i]; }

 private:
  const Integers places_, taps_, frames_;
  int64_t count_ = 0;
};

static void see_inputs(Stencil& seen, const Axes& axes, const Field& in) {
  for (int64_t tap = 0; tap < axes.taps(); ++tap) {
    const Place place = axes.place(tap);
    seen.see(place.z, in.at(place), tap);
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
