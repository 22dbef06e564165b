"""What the layers of a class are made of, and what stands before and after them."""

from dataclasses import dataclass
from functools import cached_property

from hf_dwt.remapping.anatomy import Anatomy, Choices
from hf_dwt.remapping.axes import Dimension, kind_of
from hf_dwt.remapping.depth import PostNormBlock

_HIDDEN = Dimension(("hidden",))


@dataclass(frozen=True)
class Blocks:
    """Finds the modules that play a part in a layer, by kind (see `axes.kind_of`).

    Attributes:
        anatomy: Of the class.
        choices: Answers to what it leaves open.
    """

    anatomy: Anatomy
    choices: Choices

    @cached_property
    def residual_writers(self) -> list[str]:
        """Modules in the layers that read something else, or nothing, and write to the residual stream."""
        readers, writers = set(), []
        for kind in self.anatomy.parts:
            part = self.anatomy.part(kind, self.choices)
            sides = dict(zip(part.roles, part.dimensions, strict=True))
            if sides.get("read") == _HIDDEN:
                readers.add(part.module)
            if "*" in kind and part.norm is None and sides.get("write") == _HIDDEN:
                writers.append(part.module)
        return [module for module in dict.fromkeys(writers) if module not in readers]

    @cached_property
    def norms(self) -> list[str]:
        """Norms of the hidden units in a layer, in the order in which they first ran."""
        return [module for module in self.order if "*" in module and module in self._hidden_norms]

    @cached_property
    def order(self) -> list[str]:
        """Modules with parameters, in the order in which they first ran."""
        return list(dict.fromkeys(kind_of(name) for name in self.anatomy.flow.order))

    @cached_property
    def embedding_norm(self) -> str | None:
        """The norm of the hidden units that runs before any layer."""
        before = []
        for module in self.order:
            if "*" in module:
                break
            before.append(module)
        return next((module for module in before if module in self._hidden_norms), None)

    @cached_property
    def _hidden_norms(self) -> set[str]:
        parts = self.anatomy.parts.values()
        return {part.module for part in parts if part.norm is not None and part.dimensions == (_HIDDEN,)}

    def _last_writer(self, modules: list[str]) -> str:
        """What the norm after these modules normalises besides the residual stream, '' if nothing was found."""
        return next((module for module in reversed(modules) if module in self.residual_writers), "")

    @cached_property
    def post_norm(self) -> PostNormBlock:
        """The modules of a layer that normalises after its residual sums, by the order in which they ran.

        Raises:
            ValueError: If it is not attention and one feed-forward block of two matrices, each with a norm after it.
        """
        order = [module for module in self.order if "*" in module]
        norms = [module for module in order if module in self.anatomy.flow.norms]
        writers = [self._last_writer(order[: order.index(norm)]) for norm in norms]
        readers = [
            part.module
            for kind in self.anatomy.parts
            if (part := self.anatomy.part(kind, self.choices)).module in order
            and {each.segments for each in part.dimensions} == {("intermediate",), ("hidden",)}
            and part.module not in writers
        ]
        if len(norms) != 2 or len(set(writers) - {""}) != 2 or len(readers) != 1:
            raise ValueError(
                "A layer that normalises after its residual sums can be worked on only if it is attention and one "
                f"feed-forward block; this one has {len(norms)} norms, and {len(readers)} matrices that read for the "
                "feed-forward units."
            )
        return PostNormBlock(writers[0], norms[0], readers[0], writers[1], norms[1])
