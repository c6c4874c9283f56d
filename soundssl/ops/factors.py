"""Discrete factor graphs: sum-product, max-product and Gibbs sampling over tables of log potentials.

A graph has variables with finitely many states, and factors: each names its variables and holds a table of log
potentials, minus infinity for what cannot be. Equal graphs with other tables are one batch. On trees the messages are
exact; elsewhere they are repeated, damped, until they change no more (Kschischang, Frey and Loeliger 2001).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ITERATIONS = 200  # rounds of messages where there are loops
TOLERANCE = 1e-9  # change of a normalised log message below which messages have settled
DAMPING = 0.5  # share of the old message that is kept where there are loops


class Factor(NamedTuple):
    """A table of log potentials over some variables."""

    variables: tuple[int, ...]
    table: Tensor  # [states of each variable], or [batch, states of each variable]


class Beliefs(NamedTuple):
    """What sum-product found."""

    marginals: list[Tensor]  # a variable each, [batch, states]
    log_partition: Tensor  # [batch]; Bethe's approximation where there are loops
    converged: bool
    rounds: int  # 1 on trees


class Assignment(NamedTuple):
    """A state for every variable."""

    states: Tensor  # [batch, variables], int64
    score: Tensor  # [batch], sum of its log potentials
    exact: bool  # whether no assignment has a higher score


class Graph:
    """Variables, factors between them, and a batch of tables."""

    def __init__(self, states: Sequence[int], factors: Sequence[Factor]) -> None:
        """Take the number of states of each variable, and factors, whose tables become float64.

        Raises ValueError for a variable that is not there or is named twice by a factor, and for a table of another
        shape, with NaN, or with plus infinity.
        """
        self.states = [int(count) for count in states]
        if any(count < 1 for count in self.states):
            raise ValueError("a variable has at least one state")
        self.factors = [self._checked(number, factor) for number, factor in enumerate(factors)]
        sizes = {len(factor.table) for factor in self.factors} - {1}
        if len(sizes) > 1:
            raise ValueError(f"tables are of batches of {sorted(sizes)}; give all of them for one batch")
        self.batch = sizes.pop() if sizes else 1
        self.neighbours: list[list[tuple[int, int]]] = [[] for _ in self.states]  # factor, axis of its table
        for number, factor in enumerate(self.factors):
            for axis, variable in enumerate(factor.variables):
                self.neighbours[variable].append((number, axis))
        self.roots, self.order, self.is_tree = self._walk()

    def _checked(self, number: int, factor: Factor) -> Factor:
        variables = tuple(int(variable) for variable in factor.variables)
        if len(set(variables)) < len(variables) or not variables:
            raise ValueError(f"factor {number} must name one variable or several, each once")
        if not all(0 <= variable < len(self.states) for variable in variables):
            raise ValueError(f"factor {number} names a variable that is not there; there are {len(self.states)}")
        shape = tuple(self.states[variable] for variable in variables)
        table = torch.as_tensor(factor.table, dtype=torch.float64)
        table = table[None] if table.shape == shape else table
        if table.shape[1:] != shape or table.dim() != len(shape) + 1:
            raise ValueError(f"the table of factor {number} is {tuple(table.shape)}; its variables need {shape}")
        if bool((table.isnan() | (table == math.inf)).any()):
            raise ValueError(f"the table of factor {number} has NaN or infinity; log potentials are below infinity")
        return Factor(variables, table)

    def _walk(self) -> tuple[list[int], list[tuple[int, int]], bool]:
        """Return root variables; factors, each with the variable nearer a root; and whether there is no loop."""
        roots: list[int] = []
        order: list[tuple[int, int]] = []
        reached = [False] * len(self.states)
        used = [False] * len(self.factors)
        tree = True
        for root in range(len(self.states)):
            if reached[root]:
                continue
            roots.append(root)
            reached[root] = True
            queue = deque([root])
            while queue:
                variable = queue.popleft()
                for number in (number for number, _ in self.neighbours[variable] if not used[number]):
                    used[number] = True
                    order.append((number, variable))
                    for other in self.factors[number].variables:
                        if other != variable:
                            tree = tree and not reached[other]
                            queue.extend([] if reached[other] else [other])
                            reached[other] = True
        return roots, order, tree

    def score(self, states: Tensor) -> Tensor:
        """Return the sum of log potentials of assignments. Shape: `[batch, variables]` to `[batch]`."""
        total = torch.zeros(len(states), dtype=torch.float64)
        for factor in self.factors:
            rows = torch.arange(len(states)) if len(factor.table) > 1 else torch.zeros(len(states), dtype=torch.int64)
            total += factor.table[(rows, *(states[:, variable] for variable in factor.variables))]
        return total


class _Messages:
    """Messages between factors and variables, by factor and axis; all normalised."""

    def __init__(self, graph: Graph, largest: bool) -> None:
        self.graph, self.largest = graph, largest
        self.up: list[list[Tensor]] = []  # factor to variable
        self.down: list[list[Tensor]] = []  # variable to factor
        for factor in graph.factors:
            shapes = [(1, graph.states[variable]) for variable in factor.variables]
            self.up.append([torch.zeros(shape, dtype=torch.float64) for shape in shapes])
            self.down.append([torch.zeros(shape, dtype=torch.float64) for shape in shapes])

    def _reduce(self, joint: Tensor, dims: list[int]) -> Tensor:
        if not dims:
            return joint
        return joint.amax(dims) if self.largest else torch.logsumexp(joint, dims)

    def joint(self, number: int, without: int | None = None) -> Tensor:
        """Return the table of a factor with the messages of its variables, `[batch, states of each]`."""
        total = self.graph.factors[number].table
        for axis, message in enumerate(self.down[number]):
            if axis != without:
                shape = [1] * total.dim()
                shape[0], shape[axis + 1] = message.shape
                total = total + message.reshape(shape)
        return total

    def to_variable(self, number: int, axis: int) -> Tensor:
        """Return the message of a factor to the variable of an axis."""
        joint = self.joint(number, axis)
        return _centred(self._reduce(joint, [dim for dim in range(1, joint.dim()) if dim != axis + 1]))

    def from_variable(self, variable: int) -> None:
        """Set the messages of a variable to all its factors: to each, what all the others say."""
        heard = [self.up[number][axis] for number, axis in self.graph.neighbours[variable]]
        before: list[Tensor | None] = [None]
        for message in heard[:-1]:
            before.append(message if before[-1] is None else before[-1] + message)
        after: Tensor | None = None
        for place in range(len(heard) - 1, -1, -1):
            number, axis = self.graph.neighbours[variable][place]
            both = [each for each in (before[place], after) if each is not None]
            total = both[0] + both[1] if len(both) > 1 else both[0] if both else torch.zeros_like(heard[place][:1])
            self.down[number][axis] = _centred(total)
            after = heard[place] if after is None else after + heard[place]

    def belief(self, variable: int) -> Tensor:
        """Return the unnormalised log belief of a variable, `[batch, states]`."""
        total = torch.zeros((self.graph.batch, self.graph.states[variable]), dtype=torch.float64)
        for number, axis in self.graph.neighbours[variable]:
            total = total + self.up[number][axis]
        return total

    def by_tree(self) -> None:
        """Send every message once, from the leaves to the roots and back."""
        for number, parent in reversed(self.graph.order):
            variables = self.graph.factors[number].variables
            for child in variables:
                if child != parent:
                    self.from_variable(child)
            axis = variables.index(parent)
            self.up[number][axis] = self.to_variable(number, axis)
        for root in self.graph.roots:
            self.from_variable(root)
        for number, parent in self.graph.order:
            for axis, child in enumerate(self.graph.factors[number].variables):
                if child != parent:
                    self.up[number][axis] = self.to_variable(number, axis)
                    self.from_variable(child)

    def in_rounds(self, damping: float, rounds: int, tolerance: float) -> tuple[bool, int]:
        """Send all messages again and again; return whether they settled, and after how many rounds."""
        for count in range(1, rounds + 1):
            change = 0.0
            for variable in range(len(self.graph.states)):
                self.from_variable(variable)
            for number, factor in enumerate(self.graph.factors):
                for axis in range(len(factor.variables)):
                    old, new = self.up[number][axis], self.to_variable(number, axis)
                    new = _centred((1 - damping) * new + damping * old) if damping and count > 1 else new
                    moved = (new - old).abs().nan_to_num(0.0, posinf=math.inf)  # minus infinity stays: no change
                    change = max(change, float(moved.max()))
                    self.up[number][axis] = new
            if change < tolerance:
                break
        for variable in range(len(self.graph.states)):
            self.from_variable(variable)
        return change < tolerance, count


def sum_product(
    graph: Graph, *, damping: float = DAMPING, rounds: int = ITERATIONS, tolerance: float = TOLERANCE
) -> Beliefs:
    """Return the marginals of all variables, and the log-partition: exact on trees, by loopy messages elsewhere.

    Raises ValueError where no assignment has any weight.
    """
    messages = _Messages(graph, largest=False)
    converged, count = _send(messages, damping, rounds, tolerance)
    total = torch.zeros(graph.batch, dtype=torch.float64)
    marginals = []
    for variable in range(len(graph.states)):  # Bethe: exact on trees, whatever constants the messages carry
        belief = messages.belief(variable)
        total = total + torch.logsumexp(belief, 1)
        marginals.append(torch.softmax(belief, 1))
        for number, axis in graph.neighbours[variable]:
            total = total - torch.logsumexp(messages.up[number][axis] + messages.down[number][axis], 1)
    for number in range(len(graph.factors)):
        total = total + messages.joint(number).flatten(1).logsumexp(1)
    if not bool(total.isfinite().all()):
        raise ValueError("no assignment has any weight; some potentials contradict each other")
    return Beliefs(marginals, total, converged, count)


def max_product(
    graph: Graph, *, damping: float = DAMPING, rounds: int = ITERATIONS, tolerance: float = TOLERANCE
) -> Assignment:
    """Return the best assignment: exact on trees; elsewhere the best state of each variable by loopy messages.

    Raises ValueError where no assignment has any weight.
    """
    messages = _Messages(graph, largest=True)
    _send(messages, damping, rounds, tolerance)
    states = torch.zeros((graph.batch, len(graph.states)), dtype=torch.int64)
    chosen = graph.roots if graph.is_tree else range(len(graph.states))
    for variable in chosen:
        states[:, variable] = messages.belief(variable).argmax(1)
    if graph.is_tree:  # children given their parent, so that ties are broken alike everywhere
        for number, parent in graph.order:
            _choose(messages, number, parent, states)
    score = graph.score(states)
    if graph.is_tree and not bool(score.isfinite().all()):
        raise ValueError("no assignment has any weight; some potentials contradict each other")
    return Assignment(states, score, graph.is_tree)


def gibbs(graph: Graph, *, sweeps: int = 500, burn_in: int = 100, samplers: int = 100, seed: int = 0) -> list[Tensor]:
    """Return marginals estimated by Gibbs sampling, `[batch, states]` a variable.

    Many samplers run side by side from assignments at random; after the burn-in, the conditional probabilities that
    states are drawn from are averaged. Raises ValueError for no sweep after the burn-in, and where a sampler finds a
    variable without a possible state, as potentials of minus infinity may make it.
    """
    if sweeps <= burn_in:
        raise ValueError(f"{sweeps} sweeps leave none after a burn-in of {burn_in}")
    generator = torch.Generator().manual_seed(seed)
    shape = graph.batch, samplers
    states = [torch.randint(count, shape, generator=generator) for count in graph.states]
    tables = _conditional_tables(graph)
    sums = [torch.zeros((graph.batch, count), dtype=torch.float64) for count in graph.states]
    for sweep in range(sweeps):
        for variable, count in enumerate(graph.states):
            logits = torch.zeros((*shape, count), dtype=torch.float64)
            for table, others, strides in tables[variable]:
                place = torch.zeros(shape, dtype=torch.int64)
                for other, stride in zip(others, strides, strict=True):
                    place += stride * states[other]
                rows = torch.arange(graph.batch)[:, None] if len(table) > 1 else 0
                logits += table[rows, place]
            chances = torch.softmax(logits, 2)
            if bool(chances.isnan().any()):
                raise ValueError(f"variable {variable} has no possible state given the others; Gibbs cannot sample it")
            ends = chances.cumsum(2)
            drawn = torch.rand((*shape, 1), generator=generator, dtype=torch.float64) * ends[..., -1:]
            states[variable] = (drawn >= ends).sum(2).clamp(max=count - 1)
            if sweep >= burn_in:
                sums[variable] += chances.mean(1)
    return [total / (sweeps - burn_in) for total in sums]


def _conditional_tables(graph: Graph) -> list[list[tuple[Tensor, list[int], list[int]]]]:
    """Return for each variable its factors as `[batch, states of the others, own states]`, with the others' strides."""
    tables: list[list[tuple[Tensor, list[int], list[int]]]] = [[] for _ in graph.states]
    for variable, near in enumerate(graph.neighbours):
        for number, axis in near:
            factor = graph.factors[number]
            others = [other for other in factor.variables if other != variable]
            table = factor.table.movedim(axis + 1, -1).reshape(len(factor.table), -1, graph.states[variable])
            strides = [math.prod(graph.states[later] for later in others[place + 1 :]) for place in range(len(others))]
            tables[variable].append((table, others, strides))
    return tables


def _send(messages: _Messages, damping: float, rounds: int, tolerance: float) -> tuple[bool, int]:
    if messages.graph.is_tree:
        messages.by_tree()
        return True, 1
    if not 0 <= damping < 1 or rounds < 1:
        raise ValueError("damping is at least 0 and below 1, and there is at least one round")
    return messages.in_rounds(damping, rounds, tolerance)


def _choose(messages: _Messages, number: int, parent: int, states: Tensor) -> None:
    """Set the states of the other variables of a factor, given that of the variable nearer the root."""
    factor = messages.graph.factors[number]
    others = [variable for variable in factor.variables if variable != parent]
    if not others:
        return
    axis = factor.variables.index(parent)
    joint = messages.joint(number, axis).expand(messages.graph.batch, *factor.table.shape[1:]).movedim(axis + 1, 1)
    given = joint[torch.arange(messages.graph.batch), states[:, parent]]
    best = given.flatten(1).argmax(1)
    for variable, place in zip(others, torch.unravel_index(best, given.shape[1:]), strict=True):
        states[:, variable] = place


def _centred(message: Tensor) -> Tensor:
    """Return a log message with its largest value at 0; one that forbids everything stays so."""
    top = message.amax(1, keepdim=True)
    return message - torch.where(top == -math.inf, torch.zeros_like(top), top)
