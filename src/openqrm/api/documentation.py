"""The API's documentation as one page that needs no other server: datacentres often have no way out."""

from __future__ import annotations

from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
code { background: #f3f3f3; padding: 0 .25em } h2 { margin-top: 2em; border-bottom: 1px solid #ccc }
details { margin: .3em 0 } summary { cursor: pointer } .method { display: inline-block; width: 4.5em; font-weight: 600 }
table { border-collapse: collapse; margin: .5em 0 1em 4.5em } td { padding: .1em .8em .1em 0; vertical-align: top }
"""


def page(document: dict[str, Any]) -> str:
    """The OpenAPI document for people."""
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            tag = (described.get("tags") or ["general"])[0]
            groups.setdefault(tag, []).append(_call(method.upper(), path, described, document))
    info = document["info"]
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(calls)}" for tag, calls in sorted(groups.items()))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])} API</title>"
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} API {escape(info['version'])}</h1>"
        f"<p>{escape(info['description'])} For programs: <a href=/v1/openapi.json>OpenAPI 3.1</a>.{body}</html>"
    )


def _call(method: str, path: str, described: dict[str, Any], document: dict[str, Any]) -> str:
    head = f"<span class=method>{method}</span><code>{escape(path)}</code> {escape(described['summary'])}"
    rows = [(one["name"], one["in"], one.get("description", "")) for one in described.get("parameters", ())]
    rows += _body(described, document)
    rows += [(status, "answer", answer["description"]) for status, answer in described["responses"].items()]
    cells = "".join(f"<tr><td><code>{escape(a)}</code><td>{escape(b)}<td>{escape(c)}" for a, b, c in rows)
    text = f"<p>{escape(described['description'])}" if "description" in described else ""
    return f"<details><summary>{head}</summary>{text}<table>{cells}</table></details>"


def _body(described: dict[str, Any], document: dict[str, Any]) -> list[tuple[str, str, str]]:
    if "requestBody" not in described:
        return []
    name = described["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[-1]
    schema = document["components"]["schemas"][name]
    needed = set(schema.get("required", ()))
    rows = []
    for field, part in schema.get("properties", {}).items():
        text = ": ".join(each for each in (part.get("title", ""), part.get("description", "")) if each)
        rows.append((field, "required" if field in needed else "optional", text))
    return rows
