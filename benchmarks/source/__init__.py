"""Where the data of the benchmarks comes from: records that are serialised once, and a server that just sends them."""
