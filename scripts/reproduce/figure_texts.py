"""The comments on each figure in results/figures.md."""

TEXTS = {
    1: """
The Gaussian filter and a dead leaves image: overlapping discs of all sizes, with edges and a spectrum like those of a
photograph. (The paper's photograph is not published.)""",
    2: """
The red channel minus its mean, after the convolution, and after the ReLU.""",
    3: """
The paper derives the network's linear part from its derivative. With p = 1 at one active unit, the derivative is the
filter itself, with a low-pass response; at an inactive unit, it is 0; with p = 1 everywhere, it is the sum over the
active units. All of this is reproduced. The derivative comes from the ONNX gradient graph; theory is computed
separately.""",
    4: """
For an impulse, only the units under the filter are active, and the derivative is the sum of their filters: a flat top
with soft edges. Its response is again a low-pass, with the zeros of a box of 7 pixels.""",
    5: """
AlexNet is not available; this is the available network with the smallest top-5 error. (The photograph is of a cat,
Chelsea, which comes with scikit-image; it is not shown.) According to the paper, the shape of such responses is hard
to put into one number. This is also the case here: the response for the cat has two noisy lobes, that for the impulse
is a blotchy ring. The gain at the impulse is larger, although the network is far less confident about it.""",
    6: """
The paper's 18 networks are not available; these are all available trained classifiers of known error, in order of
decreasing error. SqueezeNet and the narrow MobileNets show combs and stripes caused by their strides; the derivative of
the EfficientNets is compact. A smaller error does not go with a larger gain.""",
    7: """
**Does not agree.** In the paper, higher gains go with lower errors. For twelve ImageNet classifiers, the correlation
tends to be the opposite, also for the six that take 224 pixels (hollow points are other sizes), although its interval
covers nearly everything; squeezenet1.1_keras has nearly the same weights as squeezenet1.1. For six CIFAR-10
classifiers it is the opposite, too: the three best are so confident at the impulse (score above 0.99) that the
derivative of log z nearly vanishes. The gain of the log-odds does not have this effect; it has the paper's sign on
CIFAR-10, but not on ImageNet ([predicts.md](predicts.md)). A level of -20 dB does not separate better from worse
classifiers. These networks differ from the paper's, and gains are per 8-bit level: a network that takes 0..1 or
standardized pixels is converted to the scale of one that takes 0..255.""",
    8: """
**Agrees in the main points.** A rate four times too high is visible: the gain never settles, and the losses rise again.
At x1 to x3, the gain settles after epoch 10. But these three vary equally, so that the gain detects a rate that is too
high, but does not measure how high it is. Most of the rise at the base rate is over after epoch 1, where the error is
already 2 % (the untrained network has -63 dB, measured separately).""",
    9: """
**Agrees.** The lower rates do not make the gain more variable. At x1/10 it rises to the end, where more training would
help (the training loss still falls steeply, and the validation error is above that of the other two). The last five
epochs do not show whether the validation loss itself still falls.""",
    10: """
**Agrees in part.** Trained in full, all losses and errors are in the paper's order; in the reduced runs, with an eighth
of the steps, the validation losses were not. The base run overfits after epoch 13. From then on its gain varies by 3.2
dB instead of 1.9, which may be chance (p = 0.09); in the reduced run, which overfits far more, it varies three times as
much. Up to there it falls by 3 dB in the first epochs, too late for the criterion that was fixed beforehand, and is not
steady. Higher rates make it more variable in 7 of 9 thirds of the training.""",
    11: """
**Agrees in part.** Trained in full, the lowest rate's gain rises throughout, as in the paper; in the reduced run, with
an eighth of the steps, it had stayed flat. At x1/3 it is the other way round: the gain falls, where it had risen. That
run comes close to overfitting (its validation loss rises by 7 % of its drop, the criterion is 10 %). The order of the
runs' variability is the paper's, but with little between them.""",
    12: """
**Mostly differs.** This is the figure that was reduced most: a quarter of NIN's filters, 3,000 images. NIN does not
reach LeNet's validation error in 100 epochs. LeNet overfits from early on. Its gain varies strongly while it does, and
settles when the training loss has reached 0 and the weights no longer change, with the validation loss at its maximum:
a flat gain does not prove that training went well.""",
    13: """
**Agrees as far as it was tested.** Few filters underfit in comparison, which the gain does not show: it follows that of
the base run about 10 dB lower and is more variable, as in the paper. The run with four times the filters was stopped
after 10 epochs to save time, so it shows nothing.""",
}
