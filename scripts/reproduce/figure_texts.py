"""What is said of each figure in results/figures.md, beside the numbers."""

TEXTS = {
    1: """
A picture of dead leaves, discs of all sizes that hide one another, which has edges and a spectrum as photographs have
(the paper's photograph is not published), and the Gaussian filter.""",
    2: """
The red channel less its mean, after the convolution, and after the ReLU.""",
    3: """
The paper reads the network's linear part off its derivative: with p = 1 at one unit that is on it is the filter
itself, and its response a low-pass; at a unit that is off there is nothing; with p = 1 everywhere the live units add
up. All of it is seen. The derivative is that of the ONNX gradient graph; theory is computed apart.""",
    4: """
At an impulse only the units under the filter are on, and the derivative is the filter summed over them: a flat top
with soft edges, whose response is a low-pass again, with the zeros of a box of 7 pixels.""",
    5: """
AlexNet is not among the data; this is the network with the least top-5 error of those that are. (The photograph
is of a cat: Chelsea, which comes with scikit-image; it is not shown.) The paper finds the shape of such responses hard
to put into one number. That is so here too: the response to the cat is two noisy lobes, that to the impulse a ring with
blotches. The gain at the impulse is the larger one, though the network is far less sure of what it sees.""",
    6: """
The paper's 18 networks are not among the data; these are all trained classifiers of known error that are, from the
largest error to the least. SqueezeNet and the narrow MobileNets show the combs and stripes of their strides; the
derivative of the EfficientNets is compact. Less error does not go with more gain.""",
    7: """
**Does not agree.** The paper sees higher gains with lower errors. Of twelve ImageNet classifiers the order is rather
the opposite (its interval takes in nearly everything; of the six that take 224 pixels as well, hollow points are other
sizes; squeezenet1.1_keras has nearly the weights of squeezenet1.1), and of six CIFAR-10 ones as well: the three best
are so sure of their class at the impulse (score above 0.99) that the derivative of log z all but vanishes. The gain of
the log-odds, which is freed of that, has the paper's sign on CIFAR-10 and not on ImageNet
([predicts.md](predicts.md)). A level of -20 dB does not divide better from worse. These are other networks than the
paper's, and gains are per 8-bit level: a network that takes 0..1 or standardized pixels is brought to the scale of one
that takes 0..255.""",
    8: """
**Agrees in what matters.** A rate four times too high shows: the gain never comes to rest, and the losses rise again.
At x1 to x3 it settles after epoch 10. But these three jump alike, so that the gain warns of the rate that is too high
and does not measure how high it is; and most of the rise at the base rate is over after epoch 1, where the error is 2
% already (the untrained network has -63 dB, measured apart).""",
    9: """
**Agrees.** The lower rates do not make the gain restless; at x1/10 it climbs to the end, where more training would
help (the training loss still falls steeply, and the validation error is above that of the other two). That the
validation loss itself still falls cannot be told from its last five epochs.""",
    10: """
**Agrees where it matters most.** The base run overfits after epoch 14, and from there on its gain jumps three times
as far as before: the paper's overfitting, seen without validation data. (The first fall of the gain lasts for epochs
2 to 5 only, and does not count by the number that was fixed beforehand.) Training losses and all errors are in the
paper's order; the validation losses are not, since the lowest rate overfits most. The higher rates do not jump more
from the first epoch on, as the paper's do; an epoch is 60 steps here, not 500.""",
    11: """
**Agrees in part.** Lower rates make the gain smoother, and at x1/3 it climbs throughout. At x1/10, after an eighth of
the paper's steps, it has come up by epoch 7 and then does not move on, though the training error still falls: there a
flat gain says the wrong thing. At x1/3 the network overfits a little, and the gain becomes more restless by too
little to tell.""",
    12: """
**Mostly another picture**, since this is the figure that was reduced most: a quarter of NIN's filters, 3,000 images.
NIN does not reach LeNet's validation error in 100 epochs. LeNet overfits from early on; its gain jumps about while it
does, and comes to rest when the training loss has reached 0 and nothing moves the weights any more, with the
validation loss at its worst: a flat gain is no sign that all is well.""",
    13: """
**Agrees as far as it goes.** Few filters underfit by comparison, and the gain does not tell: it goes as the base's,
some 10 dB lower, and is more restless, as the paper's is. The run with four times the filters ended after 10 epochs
for want of time, and says nothing.""",
}
