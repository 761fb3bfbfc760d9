"""A drill as JUnit XML: a test case for each hypothesis, and one for whether it was carried out at all.

What was left out on this machine is a skipped one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as Xml


def junit(result: Mapping[str, Any]) -> bytes:
    """The XML document."""
    verdicts, left_out = result["verdicts"], result.get("left_out", [])
    bad = sum(not each["holds"] for each in verdicts) + bool(result["failure"])
    suite = Xml.Element(
        "testsuite", name=f"drill.{result['name']}", tests=str(len(verdicts) + 1 + len(left_out)),
        failures=str(bad), skipped=str(len(left_out)),
        timestamp=result["began"], time=str(result["timeline"].get("seconds", 0)),
    )  # fmt: skip
    _case(suite, result["name"], "is carried out", result["failure"])
    for each in verdicts:
        wrong = "" if each["holds"] else f"measured {each['value']}, wanted {each['bound']}"
        _case(suite, result["name"], f"{each['phase']}: {each['figure']} {each['bound']}", wrong)
    for reason in left_out:
        case = Xml.SubElement(suite, "testcase", classname=f"drill.{result['name']}", name=reason.partition(":")[0])
        Xml.SubElement(case, "skipped", message=reason)
    root = Xml.Element("testsuites")
    root.append(suite)
    Xml.indent(root)
    document: bytes = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _case(suite: Xml.Element, drill: str, name: str, wrong: str) -> None:
    case = Xml.SubElement(suite, "testcase", classname=f"drill.{drill}", name=name)
    if wrong:
        Xml.SubElement(case, "failure", message=wrong.splitlines()[0]).text = wrong
