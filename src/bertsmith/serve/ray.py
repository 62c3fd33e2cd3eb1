"""The service on Ray Serve: each replica is the application of `bertsmith serve`; there are as many as the load needs.

`serve run bertsmith.serve.ray:app bundles=runs/reviews keys=keys.toml` starts it; `deploy/ray_serve.yaml` is for
clusters. What one replica cannot say or do alone, figures and reloads, it asks of all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from pydantic import BeforeValidator, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bertsmith.core.config import Config, Duration, load
from bertsmith.core.errors import BertsmithError, ConfigError
from bertsmith.core.extras import install_command, require
from bertsmith.serve.app import build_app
from bertsmith.serve.fleet import named_bundle
from bertsmith.serve.journal import log_to_stderr
from bertsmith.serve.refusal import Refusal
from bertsmith.serve.service import ServeConfig, Service

PURPOSE = "serving on Ray"
ANSWER_SECONDS = 5.0
"""Within which replicas tell their figures; one that does not is left out."""


def _several(value: Any) -> Any:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


class ReplicaConfig(Config):
    """What a replica serves, and when there are more of them; Ray's settings have Ray's names."""

    bundles: Annotated[tuple[str, ...], BeforeValidator(_several)] = Field(
        (), description="[NAME=]BUNDLE of each model; in a command, with commas between them"
    )
    keys: str | None = Field(None, description="file of API keys, made by bertsmith keys")
    without_keys: bool = Field(False, description="serve although there are no keys; who reaches the proxies may ask")
    precision: str = Field("auto", description="auto, bf16 or fp32")
    min_replicas: int = Field(1, ge=1, description="fewest replicas")
    max_replicas: int = Field(4, ge=1, description="most replicas")
    target_ongoing_requests: float = Field(
        16.0, gt=0, description="requests under way in a replica, waiting ones too, that there are replicas for"
    )
    upscale_delay_s: Duration = Field(10.0, ge=0, description="time for which there must be more, until replicas come")
    downscale_delay_s: Duration = Field(300.0, ge=0, description="time for which there must be fewer, until some go")
    look_back_period_s: Duration = Field(15.0, gt=0, description="time over which requests are averaged")
    num_cpus: float = Field(1.0, gt=0, description="processors of a replica; its models use as many threads")
    num_gpus: float = Field(0.0, ge=0, description="GPUs of a replica; parts of one are shared")


class RayConfig(ReplicaConfig, ServeConfig):
    """How bundles are served on Ray: as `bertsmith serve` does, by as many replicas as the load needs."""


def app(args: dict[str, Any]) -> Any:
    """The application, as `serve run` and Ray Serve's configuration files build it.

    Args:
        args: settings of `RayConfig`: nested, or by dotted name with text as in a command; and `config`, a TOML file of
            such settings, which `args` go before.

    Returns:
        A `ray.serve.Application`.

    Raises:
        ConfigError: Ray Serve is not installed, a setting is not valid, no bundle is named, or there are no keys.
    """
    serve = _ray_serve()
    config = settings(args)
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="bertsmith",
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        autoscaling_config={
            "min_replicas": config.min_replicas,
            "max_replicas": config.max_replicas,
            "target_ongoing_requests": config.target_ongoing_requests,
            "upscale_delay_s": config.upscale_delay_s,
            "downscale_delay_s": config.downscale_delay_s,
            "look_back_period_s": config.look_back_period_s,
        },
        # The queue of a replica says 429 when it is full; before a limit of Ray's, requests would wait without end.
        max_ongoing_requests=config.limits.connections,
        graceful_shutdown_timeout_s=config.drain,
        graceful_shutdown_wait_loop_s=1.0,
        # Its lines hold paths as they were asked, which may be anything; the service has lines of its own.
        logging_config={"enable_access_log": False},
    )
    return deployment.bind(config)


def settings(args: Mapping[str, Any]) -> RayConfig:
    """The settings of an application, with paths that hold in other folders.

    Args:
        args: as for `app`.

    Raises:
        ConfigError: one is not valid, no bundle is named, or there are no keys.
    """
    file = args.get("config")
    given = {key: value for key, value in args.items() if key != "config"}
    typed = [f"{key}={value}" for key, value in given.items() if isinstance(value, str)]
    nested = {key: value for key, value in given.items() if not isinstance(value, str)}
    config = load(RayConfig, file=None if file is None else Path(file), sets=typed, options=nested)
    if not config.bundles:
        raise ConfigError("no bundle to serve; name one, such as bundles=runs/reviews")
    if config.keys is None and not config.without_keys:
        raise ConfigError(
            "there are no keys, and Ray's proxies may listen where others reach them; make some with `bertsmith keys "
            "add NAME keys.toml` and give keys=keys.toml, or say without_keys=true"
        )
    if config.max_replicas < config.min_replicas:
        raise ConfigError(f"max_replicas={config.max_replicas} is less than min_replicas={config.min_replicas}")
    bundles = tuple(f"{name}={_absolute(path, file=False)}" for name, path in map(named_bundle, config.bundles))
    audit = config.audit.model_copy(update={"file": _absolute(config.audit.file)})
    return config.model_copy(update={"bundles": bundles, "keys": _absolute(config.keys), "audit": audit})


def _absolute(path: str | None, file: bool = True) -> str | None:
    """A path from the root; what may be a hub's name, and is no folder here, stays as it is."""
    if path is None or not (file or Path(path).expanduser().exists()):
        return path
    return str(Path(path).expanduser().absolute())


def _ray_serve() -> Any:
    require("ray", PURPOSE)
    try:
        from ray import serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{PURPOSE} needs the package {error.name}, which is not installed: {install_command('ray')}"
        ) from None
    return serve


class Replica:
    """One replica: a service with its workers, in a process of Ray's.

    Args:
        config: settings.
    """

    def __init__(self, config: RayConfig) -> None:
        import ray

        log_to_stderr()
        context = _ray_serve().get_replica_context()
        processors = ray.get_runtime_context().get_assigned_resources().get("CPU", config.num_cpus)
        self.tag = str(context.replica_tag)
        everybody = _ray_serve().get_deployment_handle(context.deployment, context.app_name)
        self.service = Shared(config, everybody, self.tag, threads=max(1, int(processors)))

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """Start the workers; Ray sends requests once this has returned."""
        try:
            await self.service.start()
        except Refusal as refusal:
            raise RuntimeError(refusal.detail) from None
        return RequestIds(build_app(self.service))

    async def check_health(self) -> None:
        """Have each model compute something. Ray asks now and then, and replaces a replica that fails three times.

        Raises:
            RuntimeError: a model does not answer.
        """
        try:
            await self.service.fleet.probe()
        except Refusal as refusal:
            raise RuntimeError(refusal.detail) from None

    async def figures(self) -> tuple[str, list[Metric]]:
        """This replica's name and figures; called by whichever replica is asked for /metrics."""
        return self.tag, list(self.service.telemetry.registry.collect())

    async def take(self, name: str) -> tuple[str, str, str]:
        """Take a bundle as it is now on disk; called by whichever replica is asked for a reload.

        Args:
            name: of the model.

        Returns:
            This replica's name, the version that answers now, and why the new one was not taken; empty: it was.
        """
        model = self.service.fleet.models[name]
        why = ""
        try:
            await model.reload(drain=self.service.config.drain)
        except (BertsmithError, Refusal) as error:
            why = str(error.detail if isinstance(error, Refusal) else error)
        return self.tag, str(model.facts.get("version")), why

    async def __del__(self) -> None:
        """Ray calls it when the requests under way are answered."""
        if hasattr(self, "service"):
            await self.service.stop()


class Shared(Service):
    """A service that is one of several.

    Args:
        config: settings.
        everybody: Ray's handle of the deployment.
        tag: name of this replica.
        threads: of each worker.

    Raises:
        ConfigError: as of `Service`.
    """

    def __init__(self, config: RayConfig, everybody: Any, tag: str, threads: int) -> None:
        file = config.audit.file
        if file is not None:  # replicas of one machine must not write, and set aside, the same file
            own = Path(file).with_stem(f"{Path(file).stem}-{tag}")
            config = config.model_copy(update={"audit": config.audit.model_copy(update={"file": str(own)})})
        named = [named_bundle(bundle) for bundle in config.bundles]
        super().__init__(named, config, keys=config.keys, precision=config.precision, threads=threads)
        self._everybody = everybody

    async def page(self) -> bytes:
        """The figures of all replicas, each with the label `replica`."""
        asked = self._everybody.broadcast("figures").results_async(timeout_s=ANSWER_SECONDS, return_exceptions=True)
        answers = [answer for answer in await asked if not isinstance(answer, BaseException)]
        return await asyncio.to_thread(generate_latest, Together(answers))

    async def reload(self, name: str) -> str:
        """Have all replicas take a bundle as it is now on disk.

        Args:
            name: of the model.

        Returns:
            The version that all of them answer with now.

        Raises:
            Refusal: 503: a replica goes on with the old one; says which.
        """
        answers = await self._everybody.broadcast("take", name).results_async(return_exceptions=True)
        lost = sum(isinstance(answer, BaseException) for answer in answers)
        taken = [answer for answer in answers if not isinstance(answer, BaseException)]
        refused = [f"replica {tag}: {why}" for tag, _, why in taken if why]
        if lost or refused:
            gone = [f"{lost} of {len(answers)} replicas ended meanwhile"] if lost else []
            raise Refusal(503, f"{name}: not all replicas have taken the new bundle: {'; '.join(refused + gone)}")
        versions = sorted({str(version) for _, version, _ in taken})
        if len(versions) != 1:
            raise Refusal(503, f"{name}: replicas have read different bundles: {', '.join(versions)}; reload again")
        return versions[0]


class Together(Collector):
    """Figures of several replicas as one page has them.

    Args:
        answers: each replica's name and figures.
    """

    def __init__(self, answers: Sequence[tuple[str, Iterable[Metric]]]) -> None:
        self._answers = answers

    def collect(self) -> Iterable[Metric]:
        """The families, as prometheus_client wants them."""
        families: dict[str, Metric] = {}
        for tag, figures in self._answers:
            for one in figures:
                family = families.setdefault(one.name, Metric(one.name, one.documentation, one.type, one.unit))
                family.samples += [sample._replace(labels={**sample.labels, "replica": tag}) for sample in one.samples]
        return families.values()


class RequestIds:
    """ASGI middleware that leaves the header x-request-id to Ray's proxy, which sets it as well.

    Args:
        app: the service's application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on.

        Args:
            scope: ASGI's.
            receive: ASGI's.
            send: ASGI's.
        """

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message.get("headers", []) if pair[0] != b"x-request-id"]
            await send(message)

        await self.app(scope, receive, sent)
