"""What is said of each figure in results/figures.md, beside the numbers."""

TEXTS = {
    1: """
The photograph (NASA's portrait of Eileen Collins, public domain, from scikit-image; the paper's is not published) and the
Gaussian filter.""",
    2: """
The red channel less its mean, after the convolution, and after the ReLU.""",
    3: """
The paper reads the network's linear part off its derivative: with p = 1 at one unit that is on it is the filter itself,
and its response a low-pass; at a unit that is off there is nothing; with p = 1 everywhere the live units add up. All
of it is seen. The derivative is that of the ONNX gradient graph, theory is computed apart.""",
    4: """
At an impulse only the units under the filter are on, and the derivative is the filter summed over them: a flat top of 7
pixels with soft edges, whose response is again a low-pass, with the zeros of a 7-pixel box.""",
    5: """
AlexNet is not among the data; this is the network with the least top-5 error of those that are. (The photograph: Chelsea,
by Stefan van der Walt, CC0, from scikit-image.) The paper finds the shape of such responses hard to put into one number.
That is so here too: the response to the cat is noise with two lobes, that to the impulse a ring. The gain at the
impulse is larger, though the network is far less sure of what it sees.""",
    6: """
The paper's 18 networks are not among the data; these are all trained classifiers of known error that are, from the largest
error to the least. Networks of the worse half (strides and pools early, no skip connections) show combs and stripes; the
EfficientNets have a compact derivative and a broad response.""",
    7: """
**Does not agree.** The paper sees higher gains with lower errors. Of nine ImageNet classifiers the order is rather the
opposite (the interval includes everything but a strong trend either way), and of six CIFAR-10 ones clearly so, because
the three best are so sure of their class at the impulse that d log z vanishes; the gain of the log-odds, which is freed
of that, has the paper's sign there (results/predicts.md). The level of -20 dB does not divide better from worse. Other
networks than the paper's, and gains per 8-bit level here: a network that takes 0..1 or standardized pixels is brought to
the scale of one that takes 0..255.""",
    8: "x",
    9: "x",
    10: "x",
    11: "x",
    12: "x",
    13: "x",
}
