"""A Ray head and two more nodes as processes on loopback: prints the address, kills a node at each line."""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    common = {"num_cpus": 1, "object_store_memory": 80 << 20, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args={**common, "include_dashboard": False})
    others = [cluster.add_node(**common) for _ in range(2)]
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for _ in sys.stdin:
        cluster.remove_node(others.pop(), allow_graceful=False)
        print("gone", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
