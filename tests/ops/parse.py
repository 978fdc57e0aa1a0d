"""Reads a scrape on standard input with Prometheus's own parser and prints its samples as JSON.

    parse.py text|openmetrics
"""

import json
import sys

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

parse = {
    "text": parser.text_string_to_metric_families,
    "openmetrics": openmetrics.text_string_to_metric_families,
}[sys.argv[1]]
samples = [
    {"name": sample.name, "labels": sample.labels, "value": float(sample.value), "type": family.type}
    for family in parse(sys.stdin.read())
    for sample in family.samples
]
json.dump(samples, sys.stdout)
