"""What a service stands on and can run out of: its certificate's days, and the disk that its audit is written on."""

from __future__ import annotations

import re
import shutil
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_TIME = rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)"
_VALIDITY = re.compile(rb"\x30." + 2 * _TIME, re.S)
"""A certificate's validity in DER: a sequence of two times, each UTCTime or GeneralizedTime (RFC 5280, 4.1.2.5)."""


class Surroundings(Collector):
    """Figures of what is around a service, read when somebody asks.

    Attributes:
        audit_folder: where the audit is written; None: there is no audit.
        certificate_end: when the certificate ends, in seconds since 1970; None: there is none.
    """

    def __init__(self, audit_folder: Path | None) -> None:
        self.audit_folder = audit_folder
        self.certificate_end: float | None = None

    def collect(self) -> Iterable[Metric]:
        """The families, as prometheus_client wants them; without samples where there is nothing to measure."""
        end = GaugeMetricFamily(
            "bertsmith_certificate_expiry_timestamp_seconds", "When the TLS certificate in use ends."
        )
        free = GaugeMetricFamily("bertsmith_audit_disk_free_bytes", "What is free where the audit is written.")
        size = GaugeMetricFamily("bertsmith_audit_disk_size_bytes", "Size of the disk on which the audit is written.")
        if self.certificate_end is not None:
            end.add_metric([], self.certificate_end)
        if self.audit_folder is not None:
            try:
                usage = shutil.disk_usage(self.audit_folder)
            except OSError:  # the folder is gone; what is not known is not shown
                usage = None
            if usage is not None:
                free.add_metric([], usage.free)
                size.add_metric([], usage.total)
        return [end, free, size]


def certificate_end(path: Path) -> float | None:
    """When the first certificate of a file ends.

    Args:
        path: PEM.

    Returns:
        Seconds since 1970; None where it cannot be told.
    """
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    text = path.read_text(encoding="ascii", errors="replace")
    der = ssl.PEM_cert_to_DER_cert(begin + text.partition(begin)[2].partition(end)[0] + end)
    found = _VALIDITY.search(der)
    if found is None:
        return None
    short, full = (group.decode() if group else "" for group in found.groups()[2:])
    # Two digits of a year from 50 on belong to the last century (RFC 5280, 4.1.2.5.1).
    century = "" if full else ("19" if short >= "50" else "20")
    return datetime.strptime(century + (full or short), "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
