"""Benches against a really running controller: `python -m bench [NAME…]`. See docs/howto/measure.md."""
