"""A small world for demo, tests and benchmarks: hosts in network namespaces with no route to the outside."""
