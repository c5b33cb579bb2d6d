"""Development tools: programs that judge the library and are no part of it."""
