"""All of a benchmark, in the order it runs: matrix rates, components, routes, everything at once."""

from __future__ import annotations

from collections.abc import Callable

from mova_export.bench import components, everything, facts, routes, table
from mova_export.bench.candidates import Candidate, candidates
from mova_export.bench.groups import room
from mova_export.bench.needs import together
from mova_export.bench.options import Options, check
from mova_export.bench.process import Worker
from mova_export.bench.results import Results
from mova_export.bench.torch_origin import Origin, origin_of
from mova_export.bench.turns import Budget
from mova_export.errors import WorkerError
from mova_runtime.bundle import Bundle

Tell = Callable[[str], None]

_FLOATING = ("fp32", "fp16", "bf16")


class Measurement:
    """What is to be measured, found to make sense; `results` hold what was found so far."""

    def __init__(self, bundle: Bundle, options: Options, command: str, tell: Tell) -> None:
        """See that everything that was asked for can be.

        Raises:
            BenchError, BackendError: see `options.check`, `candidates`, `origin_of` and `routes`.
        """
        check(options, bundle)
        self.results = Results(bundle, options, command)
        self._bundle, self._options, self._tell = bundle, options, tell
        names = [name for name in bundle.manifest.components if name in (options.only or bundle.manifest.components)]
        self._candidates = {name: candidates(bundle, name, options) for name in names}
        self._origin: Origin | None = origin_of(bundle, options.checkpoint) if options.against else None
        # Who asks about single components has no requests in mind.
        asked = () if options.routes is None and options.only is not None else options.routes
        self._routes = routes.routes(bundle, asked)

    def run(self) -> None:
        """Measure, telling what was found as it is found."""
        if (busy := facts.load()) > facts.cores():
            self._tell(f"others keep this machine busy (load {busy:.1f}): times will mean little")
        self._matrix_rates()
        self._components()
        if self._routes:
            self._all_routes()
        self.results.complete = True

    def _matrix_rates(self) -> None:
        ours = dict.fromkeys(one for found in self._candidates.values() for one in found if one.ours)
        wanted = [(one.backend, one.precision) for one in ours if one.precision in _FLOATING]
        try:
            with Worker() as worker:
                found = worker.ask("rates", backends=wanted, threads=self._options.threads)
        except WorkerError as error:
            self._tell(f"no matrix rates: {error}")
            return
        self.results.matrix_rate = found["rates"]
        self._tell(table.rates(self.results.matrix_rate))

    def _components(self) -> None:
        options = self._options
        budget = Budget(options.repeats, options.seconds)
        setting = components.Setting(self._bundle, options.threads, options.warmup, budget, self._origin)
        self._tell(table.HEAD)
        for name, contenders in self._candidates.items():
            self._tell(table.head(name, self._bundle.component(name)))
            found = components.measure(setting, name, contenders)
            self.results.components[name] = found
            for line in table.contenders(found, self.results.matrix_rate):
                self._tell(line)

    def _all_routes(self) -> None:
        if lacks := routes.lacking(self._bundle):
            self._tell(f"no routes: the bundle has no {', '.join(lacks)}")
            return
        fastest: dict[str, Candidate] = {
            name: best.candidate for name, found in self.results.components.items() if (best := found.fastest)
        }
        if not fastest:
            self._tell("no routes: nothing here computes what torch computed")
            return
        by, threads = routes.served(self._bundle, fastest), self._options.threads
        try:
            checked = routes.know(self._routes, by, self._bundle, threads)
        except WorkerError as error:
            self._tell(f"no routes: {error}")
            return
        if checked:
            self._tell(f"\nchecked for requests, once on this machine: {', '.join(checked)}")
        self._tell(table.routes_head())
        for route in self._routes:
            names = routes.names_of(self._bundle, [route])
            # Engines that don't fit beside each other take turns, as a device would have them.
            budget = room() if together(self.results.components, names, by) > room() else None
            self.results.routes.append(routes.measure(route, by, self._bundle, threads, budget))
            self._tell(table.route(self.results.routes[-1]))
        self._tell(f"served by {by}")
        if self._options.only is None:
            self._everything(by)

    def _everything(self, by: routes.Served) -> None:
        results, threads = self.results, self._options.threads
        try:
            found = everything.measure(self._bundle, by, results.components, results.routes, threads)
        except WorkerError as error:
            self._tell(f"everything at once: {error}")
            return
        results.everything = found
        self._tell(table.everything(found))
