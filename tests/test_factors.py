"""Factor graphs against enumeration of every assignment; chains against factor graphs."""

import itertools
import math

import numpy as np
import pytest
import torch

from soundssl.ops import chains, factors
from soundssl.ops.factors import Factor, Graph


def enumerated(graph):
    """Return marginals, log-partition and the best score of every graph of a batch, by looking at all assignments."""
    every = torch.tensor(list(itertools.product(*map(range, graph.states))))
    found = []
    for number in range(graph.batch):
        scores = torch.zeros(len(every), dtype=torch.float64)
        for factor in graph.factors:
            table = factor.table[number if len(factor.table) > 1 else 0]
            scores += table[tuple(every[:, variable] for variable in factor.variables)]
        total = torch.logsumexp(scores, 0)
        weights = (scores - total).exp()
        own = [
            torch.stack([weights[every[:, variable] == state].sum() for state in range(count)])
            for variable, count in enumerate(graph.states)
        ]
        found.append((own, total, scores.max()))
    return found


def tree(draw, batch=1):
    """Return a random forest of three to six variables; factors over one, two or three of them."""
    count = int(draw.integers(3, 7))
    states = [int(draw.integers(1, 4)) for _ in range(count)]
    own = [(variable,) for variable in range(count) if draw.random() < 0.7]
    reached = 1
    while reached < count:
        size = min(int(draw.integers(1, 3)), count - reached)
        if draw.random() < 0.1:  # another component
            reached += 1
            continue
        between = (int(draw.integers(reached)), *range(reached, reached + size))
        own.append(tuple(draw.permutation(between)))
        reached += size
    tables = [draw.normal(0, 2, (batch, *(states[variable] for variable in each))) for each in own]
    return Graph(states, [Factor(each, torch.tensor(table)) for each, table in zip(own, tables, strict=True)])


@pytest.mark.parametrize("block", range(10))
def test_sum_and_max_product_on_trees_are_exact(block):
    draw = np.random.default_rng(block)
    for _ in range(20):
        graph = tree(draw, batch=int(draw.integers(1, 4)))
        assert graph.is_tree
        beliefs, best = factors.sum_product(graph), factors.max_product(graph)
        assert beliefs.converged and best.exact
        for number, (marginals, total, score) in enumerate(enumerated(graph)):
            assert abs(beliefs.log_partition[number] - total) < 1e-9
            assert abs(best.score[number] - score) < 1e-9
            for own, expected in zip(beliefs.marginals, marginals, strict=True):
                assert (own[number] - expected).abs().max() < 1e-9


def chain_graph(observed, change):
    steps, states = observed.shape[1:]
    own = [Factor((step,), observed[:, step]) for step in range(steps)]
    return Graph([states] * steps, own + [Factor((step, step + 1), change) for step in range(steps - 1)])


@pytest.mark.parametrize("block", range(4))
def test_chains_are_exact(block):
    draw = np.random.default_rng(100 + block)
    for _ in range(50):
        number, steps, states = draw.integers(1, 4), draw.integers(1, 8), draw.integers(1, 4)
        observed = torch.tensor(draw.normal(0, 3, (number, steps, states)))
        change = torch.tensor(draw.normal(0, 3, (states, states)))
        smoothed = chains.marginals(observed, change)
        path, score = chains.best_path(observed, change)
        graph = chain_graph(observed, change)
        assert torch.allclose(graph.score(path), score, atol=1e-9)
        for place, (marginals, total, best) in enumerate(enumerated(graph)):
            assert (smoothed.marginals[place] - torch.stack(marginals)).abs().max() < 1e-9
            assert abs(smoothed.log_partition[place] - total) < 1e-9 and abs(score[place] - best) < 1e-9


@pytest.mark.parametrize("scale", [1.0, 300.0], ids=["exponentials", "logarithms"])
@pytest.mark.parametrize("forbidden", [False, True])
def test_blocks_of_time_agree_with_messages_step_by_step(scale, forbidden):
    draw = np.random.default_rng(7)
    observed = torch.tensor(draw.normal(0, scale, (2, 203, 3)))
    change = torch.tensor(draw.normal(0, 2, (2, 3, 3)))
    if forbidden:
        change[:, 0, 2] = -math.inf
        observed[0, 50, 1] = -math.inf
    graph = chain_graph(observed, change)
    beliefs, best = factors.sum_product(graph), factors.max_product(graph)
    smoothed = chains.marginals(observed, change)
    path, score = chains.best_path(observed, change)
    assert torch.allclose(smoothed.marginals, torch.stack(beliefs.marginals, 1), atol=1e-9)
    assert torch.allclose(smoothed.log_partition, beliefs.log_partition, rtol=1e-12)
    assert torch.equal(path, best.states) and torch.allclose(score, best.score, rtol=1e-12)


def test_neutral_changes_leave_every_step_as_it_is():
    observed = torch.tensor(np.random.default_rng(3).normal(0, 5, (3, 500, 4)))
    smoothed = chains.marginals(observed, torch.zeros(4, 4))
    assert torch.allclose(smoothed.marginals, observed.softmax(2), atol=1e-12)


def grid(draw, coupling):
    """Return a 4 by 4 grid of two-state variables with fields and couplings at random."""
    edges = [(4 * row + column, 4 * row + column + 1) for row in range(4) for column in range(3)]
    edges += [(4 * row + column, 4 * row + column + 4) for row in range(3) for column in range(4)]
    own = [Factor((variable,), torch.tensor(draw.normal(0, 0.5, 2))) for variable in range(16)]
    sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    return Graph([2] * 16, own + [Factor(edge, sign * float(draw.uniform(-coupling, coupling))) for edge in edges])


def test_loopy_messages_and_gibbs_come_near_on_grids():
    graph = grid(np.random.default_rng(0), 0.3)
    assert not graph.is_tree
    [(exact, total, best)] = enumerated(graph)
    loopy = factors.sum_product(graph)
    sampled = factors.gibbs(graph, sweeps=100, burn_in=20, samplers=200)
    assert loopy.converged and abs(loopy.log_partition[0] - total) < 0.1
    for own, drawn, expected in zip(loopy.marginals, sampled, exact, strict=True):
        assert (own[0] - expected).abs().max() < 0.02 and (drawn[0] - expected).abs().max() < 0.02
    found = factors.max_product(graph)
    assert not found.exact and found.score[0] <= best + 1e-9 and found.score[0] > best - 1.0


def test_gibbs_of_a_batch_over_several_states_agrees_with_messages():
    draw = np.random.default_rng(11)
    tables = [torch.tensor(draw.normal(0, 1, shape)) for shape in ((3, 2, 3), (1, 3, 4))]
    graph = Graph([2, 3, 4], [Factor((0, 1), tables[0]), Factor((1, 2), tables[1])])
    exact, sampled = factors.sum_product(graph).marginals, factors.gibbs(graph, sweeps=200, burn_in=20, seed=1)
    assert all((one - other).abs().max() < 0.02 for one, other in zip(exact, sampled, strict=True))
    again = factors.gibbs(graph, sweeps=200, burn_in=20, seed=1)
    assert all(torch.equal(one, other) for one, other in zip(sampled, again, strict=True))


def test_loops_that_do_not_settle_in_time_say_so():
    assert not factors.sum_product(grid(np.random.default_rng(0), 0.3), rounds=2).converged


def test_what_is_forbidden_has_no_weight():
    both = torch.tensor([[0.0, 0.0], [-math.inf, 0.0]])  # a child present needs its parent
    graph = Graph([2, 2], [Factor((0, 1), both), Factor((1,), torch.tensor([0.0, -math.inf]))])
    beliefs = factors.sum_product(graph)
    assert beliefs.marginals[0][0].tolist() == [1.0, 0.0] and beliefs.log_partition[0] == 0.0
    contradiction = Graph([2], [Factor((0,), torch.full((2,), -math.inf))])
    for infer in (factors.sum_product, factors.max_product):
        with pytest.raises(ValueError, match="contradict"):
            infer(contradiction)
    with pytest.raises(ValueError, match="no possible state"):
        factors.gibbs(contradiction)
    for infer in (chains.marginals, chains.best_path):
        with pytest.raises(ValueError, match="contradict"):
            infer(torch.full((1, 20, 2), -math.inf), torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("states", "variables", "table", "message"),
    [
        ([2, 2], (0, 0), torch.zeros(2, 2), "each once"),
        ([2, 2], (), torch.zeros(1), "each once"),
        ([2, 2], (0, 2), torch.zeros(2, 2), "not there"),
        ([2, 3], (0, 1), torch.zeros(3, 2), "need"),
        ([2], (0,), torch.tensor([0.0, math.nan]), "NaN"),
        ([2], (0,), torch.tensor([0.0, math.inf]), "infinity"),
        ([0], (0,), torch.zeros(0), "at least one"),
    ],
)
def test_wrong_graphs_are_refused(states, variables, table, message):
    with pytest.raises(ValueError, match=message):
        Graph(states, [Factor(variables, table)])


def test_tables_of_different_batches_are_refused():
    with pytest.raises(ValueError, match="batches"):
        Graph([2, 2], [Factor((0,), torch.zeros(3, 2)), Factor((1,), torch.zeros(4, 2))])


@pytest.mark.parametrize(
    ("observed", "change", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(2, 2), "chains, steps, states"),
        (torch.zeros(1, 3, 2), torch.zeros(3, 3), "do not fit"),
        (torch.zeros(2, 3, 2), torch.zeros(3, 2, 2), "do not fit"),
        (torch.full((1, 3, 2), math.nan), torch.zeros(2, 2), "NaN"),
    ],
)
def test_wrong_chains_are_refused(observed, change, message):
    for infer in (chains.marginals, chains.best_path):
        with pytest.raises(ValueError, match=message):
            infer(observed, change)
