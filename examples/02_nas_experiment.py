"""The same search as a strategy of NNI's NasExperiment: python examples/02_nas_experiment.py --fast --sampler gdas."""

import argparse

import nni.nas.strategy  # noqa: F401 (before anything under nni.nas.oneshot, or NNI's imports go round in a circle)
import torch
from digits import DigitSpace, TurnedDigits
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.experiment import NasExperiment

from nni_dynconv import (
    DartsSampler,
    DynamicWeightMutator,
    EnasSampler,
    GdasSampler,
    RandomSampler,
    VectorContext,
)

SAMPLERS = {"random": RandomSampler, "enas": EnasSampler, "darts": DartsSampler, "gdas": GdasSampler}


def main(sampler, epochs, batches):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(
        DigitSpace(), sampler=SAMPLERS[sampler](seed=0), context=VectorContext(4, dim=16), base="learned"
    )
    evaluator = Classification(
        learning_rate=2e-3,
        num_classes=10,
        train_dataloaders=DataLoader(TurnedDigits(train=True), 64, shuffle=True),
        val_dataloaders=DataLoader(TurnedDigits(train=False), 64),
        max_epochs=epochs,
        limit_train_batches=batches,
        limit_val_batches=batches,
        accelerator="cpu",
        enable_checkpointing=False,
        logger=False,
    )
    strategy = mutator.strategy(metric="val_acc", folder="runs/digits")
    NasExperiment(mutator.space, evaluator, strategy).run()

    network = strategy.network  # trained to its end: network(x, context); it is exported, too
    print(f"found {network.architecture}; held-out accuracy {strategy.trained.result:.3f}")
    print('use it: nni_dynconv.load("runs/digits")')


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true", help="a search of seconds")
    parser.add_argument("--sampler", choices=SAMPLERS, default="gdas")
    options = parser.parse_args()
    main(options.sampler, *((2, 20) if options.fast else (8, None)))
