// Depthwise convolution of many planes: canvases and scratch memory around the kernels of `depthwise.h`, with which it
// is included once per instruction set.

static Canvas input_canvas(const Geometry& g) {
  return Canvas(g.ph, g.pw, g.H + 2 * g.ph, g.W + 2 * g.pw, g.sw);
}

// The output's gradient, padded so that every input finds all the outputs it took part in.
static Canvas gradient_canvas(const Geometry& g) {
  int64_t top = (g.Kh - 1) * g.dh - g.ph, left = (g.Kw - 1) * g.dw - g.pw;
  if (g.sh == 1 && g.sw == 1) return Canvas(top, left, g.H + (g.Kh - 1) * g.dh, g.W + (g.Kw - 1) * g.dw, 1);
  top = up(top, g.sh), left = up(left, g.sw);
  const int64_t rows = top + most(g.Ho, (g.H - 1 + g.ph) / g.sh + 1);
  const int64_t columns = left + most(g.Wo, (g.W - 1 + g.pw) / g.sw + 1);
  return Canvas(top, left, rows, columns, 1);
}

// Planes `first` to `last` (of B * C) of the output.
static void forward(const Geometry& g, const float* x, const float* weight, float* y, int64_t first, int64_t last) {
  Canvas canvas = input_canvas(g);
  const Floats memory(canvas.size());
  const Offsets offset(g.Kh * g.Kw);
  canvas.data = memory.data;
  for (int64_t p = first; p < last; ++p) {
    canvas.draw(x + p * g.H * g.W, g.H, g.W);
    const float* kernel = weight + (g.shared ? p % g.C : p) * g.Kh * g.Kw;
    correlate(canvas, kernel, offset.data, y + p * g.Ho * g.Wo, g);
  }
}

struct InputGradient {
  Geometry g, flipped;
  Canvas canvas;
  Floats memory, row, weight;
  Offsets offset;

  explicit InputGradient(const Geometry& g)
      : g(g), flipped(g), canvas(gradient_canvas(g)), memory(canvas.size()),
        row(4 * (g.W + LANES)), weight(g.Kh * g.Kw), offset(g.Kh * g.Kw) {
    canvas.data = memory.data;
    flipped.Ho = g.H, flipped.Wo = g.W;
  }

  void plane(const float* grad, const float* kernel, float* out) {
    canvas.draw(grad, g.Ho, g.Wo);
    if (g.sh > 1 || g.sw > 1) return Scatter{g, canvas, row.data, weight.data, offset.data}.plane(kernel, out);
    for (int64_t k = 0, taps = g.Kh * g.Kw; k < taps; ++k) weight.data[k] = kernel[taps - 1 - k];
    correlate(canvas, weight.data, offset.data, out, flipped);
  }
};

struct WeightGradient {
  Geometry g;
  Canvas canvas, tail;  // tail: the output's gradient with whole vectors in each row
  Floats memory, tail_memory;

  explicit WeightGradient(const Geometry& g)
      : g(g), canvas(input_canvas(g)), tail(0, 0, g.Ho, g.Wo, 1), memory(canvas.size()), tail_memory(tail.size()) {
    canvas.data = memory.data;
    tail.data = tail_memory.data;
  }

  void plane(const float* x, const float* grad, float* out) {
    canvas.draw(x, g.H, g.W);
    if (g.Wo % LANES == 0) return weigh_all(canvas, grad, g.Wo, g, out);
    tail.draw(grad, g.Ho, g.Wo);
    weigh_all(canvas, tail.data, tail.pitch, g, out);
  }
};

// Kernels `first` to `last`: B * C of them, or C shared ones, each with its planes. `dx` or `dw` may be null.
static void backward(const Geometry& g, const float* x, const float* weight, const float* dy, float* dx, float* dw,
                     int64_t first, int64_t last) {
  const int64_t taps = g.Kh * g.Kw, planes = g.B * g.C;
  InputGradient to_input(g);
  WeightGradient to_weight(g);
  for (int64_t k = first; k < last; ++k) {
    for (int64_t t = 0; dw && t < taps; ++t) dw[k * taps + t] = 0;
    for (int64_t p = k; p < planes; p += g.shared ? g.C : planes) {
      const float* grad = dy + p * g.Ho * g.Wo;
      if (dx) to_input.plane(grad, weight + k * taps, dx + p * g.H * g.W);
      if (dw) to_weight.plane(x + p * g.H * g.W, grad, dw + k * taps);
    }
  }
}
