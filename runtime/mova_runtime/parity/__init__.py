"""Parity: does an engine still compute what torch computed? Any component can be asked, on any machine."""
