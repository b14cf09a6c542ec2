"""Evolution over a trained supernet, NNI's and ours: python examples/03_evolve_after_search.py --fast."""

import argparse
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from digits import DeepDigitSpace, TurnedDigits
from nni.nas.experiment import NasExperiment
from nni.nas.strategy import Random, RegularizedEvolution
from torch.utils.data import DataLoader, Subset

from nni_dynconv import DynamicWeightMutator, EnasSampler, SupernetEvaluator, VectorContext, evolve


def train(mutator, steps, loader, held_out):
    optimizer = torch.optim.Adam(mutator.space.parameters(), lr=0.01)  # network and controller
    for step, ((x, c), y), ((x_val, c_val), y_val) in zip(range(steps), cycle(loader), cycle(held_out), strict=False):
        mutator.reset()
        optimizer.zero_grad()
        F.cross_entropy(mutator(x, context=c), y).backward()
        optimizer.step()
        sample = mutator.reset()
        if step >= steps // 2:  # until then, what an architecture scores says little about it
            with torch.no_grad():
                mutator.sampler.observe(sample, -F.cross_entropy(mutator(x_val, context=c_val), y_val).item())


def main(seed, steps, trials):
    torch.manual_seed(seed)
    context = VectorContext(4, dim=16)
    mutator = DynamicWeightMutator(DeepDigitSpace(), sampler=EnasSampler(seed), context=context, base="learned")
    pool = TurnedDigits(train=False)
    halves = [Subset(pool, range(start, len(pool), 2)) for start in (0, 1)]  # one to search by, one to report
    loader = DataLoader(TurnedDigits(train=True), 64, shuffle=True, drop_last=True)
    train(mutator, steps, loader, held_out=DataLoader(halves[0], 64, shuffle=True, drop_last=True))
    ((x, c), y), ((x_new, c_new), y_new) = (next(iter(DataLoader(half, len(half)))) for half in halves)
    evaluator = SupernetEvaluator(mutator, lambda net: -F.cross_entropy(net(x, context=c), y), islice(loader, 4))
    found = {"the sampler's export": mutator.export()}
    evolution = RegularizedEvolution(population_size=trials // 4, sample_size=5, mutation_prob=0.25, seed=seed)
    for name, strategy in {"random search": Random(seed=seed), "evolution": evolution}.items():
        experiment = NasExperiment(mutator.space, evaluator, strategy)
        experiment.config.max_trial_number = trials
        experiment.run()
        (found[name],) = experiment.export_top_models(formatter="dict")
    own = evolve(mutator.choices, lambda sample: -evaluator.score(sample), evaluations=trials, seed=seed)
    for name, sample in {**found, "our evolution": own.best_first("loss")[0].sample}.items():
        network = mutator.eval().freeze(sample, calibrate=evaluator.calibration)  # a plain module, as it was scored
        hits = network(x_new, c_new).argmax(1) == y_new
        print(f"{name}: score {evaluator.score(sample):.4f}, accuracy on new samples {hits.float().mean():.3f}")
    print(f"found {found['evolution']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true", help="a search of seconds")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    main(chosen.seed, *((40, 20) if chosen.fast else (600, 100)))
