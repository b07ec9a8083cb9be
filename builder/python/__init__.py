"""CPython: releases, source, flags, compile, and the checks of the result."""
