"""The distribution of the synthetic source: documents of Markov chains, with an entropy rate in closed form.

A document is the token 50256 followed by a walk of a Markov chain over a few hundred ids, spread over the whole GPT-2
vocabulary. Document lengths L (the start token counts) are independent draws of a lognormal rounded up to integers in
[2, LONGEST]. The chain leaves state i for one of four successors of its own, with weights 1 : 1/2 : 1/3 : 1/4, or, with
probability RESTART, for a state drawn from one Zipf law. The first state of a document is drawn from the chain's
stationary distribution, so every content token has that distribution.

Entropy rate. A document is a draw of its length, of its first state and of L - 2 transitions, so its entropy is

    H(document) = H(L) + H(stationary) + (E[L] - 2) H(chain),    H(chain) = sum_i stationary_i H(transition_i),

since the walk does not depend on the length (the term E[L - 2] needs no more than independence). Documents are
independent and the start token marks where each begins, so the stream is a renewal process and by the renewal reward
theorem a token carries

    h = H(document) / E[L]   nats

in the long run. Every term is a finite sum over known probabilities. By the chain rule h is also the mean code length
of the true conditional distribution, in which the token after a prefix is the start of a new document with the hazard
P(L = age) / P(L >= age) and otherwise a transition from the last state. It uses all that went before, so by Gibbs'
inequality no predictor that sees only the past has a smaller expected loss. The loss over n tokens scatters around its
expectation by about 2/sqrt(n) nats; `synthetic.code_length` is that loss, exactly, for the tokens at hand.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from harness.errors import UserError

DOCUMENT_START = 50256
STATES = 256  # content ids; with the start token the source speaks 257 of the 50257 ids
BRANCHES = 4  # successors of a state
RESTART = 0.1  # probability that the chain ignores its state
ZIPF_EXPONENT = 1.0
MEDIAN_LENGTH = 60.0  # tokens per document: several documents start in a row of 256
LENGTH_SPREAD = 0.8  # standard deviation of the logarithm of the length
LONGEST = 2048


@dataclass(frozen=True)
class Source:
    """The distribution itself. Probabilities are float64; `states` counts the content ids.

    ids: token id of each state, shape (states,).  successors: states that follow a state, shape (states, BRANCHES).
    branch: probability of each successor, (BRANCHES,).  zipf, stationary: (states,).  transition: (states, states).
    length: P(L = l) for l = 0 .. LONGEST.
    """

    ids: np.ndarray
    successors: np.ndarray
    branch: np.ndarray
    zipf: np.ndarray
    stationary: np.ndarray
    transition: np.ndarray
    length: np.ndarray

    @property
    def mean_length(self) -> float:
        """E[L] in tokens, the start token included."""
        return float(self.length @ np.arange(len(self.length)))

    def entropy_rate(self) -> float:
        """h in nats per token: the floor of any loss on this source (derivation at the top of the file)."""
        chain = float(self.stationary @ entropy(self.transition))
        document = entropy(self.length) + entropy(self.stationary) + (self.mean_length - 2) * chain
        return float(document / self.mean_length)

    def unigram_entropy(self) -> float:
        """Entropy of one token in nats when nothing before it is known: the loss of a model that only learnt counts."""
        start = 1 / self.mean_length
        return float(entropy(np.append((1 - start) * self.stationary, start)))


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy in nats along the last axis, with 0 log 0 = 0."""
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    return -(probabilities * logs).sum(-1)


@cache
def source(seed: int = 0, median_length: float = MEDIAN_LENGTH) -> Source:
    """The source that belongs to a seed. Which ids are frequent and what follows what depends on the seed alone."""
    generator = np.random.default_rng([seed, 0])
    ids = generator.permutation(np.linspace(0, DOCUMENT_START - 1, STATES).astype(np.int64))
    zipf = 1 / np.arange(1, STATES + 1) ** ZIPF_EXPONENT
    zipf /= zipf.sum()
    # The largest perturbed logarithms draw successors from the Zipf law without repetition (Gumbel's trick).
    perturbed = np.log(zipf) + generator.gumbel(size=(STATES, STATES))
    successors = np.argsort(-perturbed, axis=1)[:, :BRANCHES]
    branch = 1 / np.arange(1, BRANCHES + 1)
    branch /= branch.sum()
    transition = np.tile(RESTART * zipf, (STATES, 1))
    np.put_along_axis(
        transition, successors, np.take_along_axis(transition, successors, 1) + (1 - RESTART) * branch, axis=1
    )
    return Source(ids, successors, branch, zipf, _stationary(transition), transition, _lengths(median_length))


def entropy_rate(seed: int = 0, median_length: float = MEDIAN_LENGTH) -> float:
    """Entropy rate of the synthetic source of `seed`, in nats per token."""
    return source(seed, median_length).entropy_rate()


def _stationary(transition: np.ndarray) -> np.ndarray:
    """The row vector p with p = p @ transition and sum 1; unique, since every state can restart into every other."""
    system = np.vstack([transition.T - np.eye(len(transition)), np.ones(len(transition))])
    target = np.append(np.zeros(len(transition)), 1.0)
    solution = np.linalg.lstsq(system, target, rcond=None)[0]
    return np.maximum(solution, 0) / np.maximum(solution, 0).sum()


def _lengths(median: float) -> np.ndarray:
    """P(L = l), l = 0 .. LONGEST: the lognormal's mass in (l - 1, l], given that 2 <= L <= LONGEST."""
    if not 2 <= median <= LONGEST / 2:
        raise UserError(f"a median document length of {median} tokens: choose one from 2 to {LONGEST // 2}")
    edges = np.log(np.arange(1, LONGEST + 1)) - math.log(median)
    from scipy.special import ndtr  # asked for a new source only, and slower to load than all the rest

    mass = np.concatenate([[0.0, 0.0], np.diff(ndtr(edges / LENGTH_SPREAD))])
    return mass / mass.sum()
