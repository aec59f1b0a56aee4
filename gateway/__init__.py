"""Tandem's gateway: who asks, how much they may, which engine, one answer from start to end.

In request order: middleware -> routes -> auth -> limits -> admission -> engines -> relay.
"""
