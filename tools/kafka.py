"""The mock cluster of librdkafka, told what to do by lines on standard input.

Each line is a command with its arguments, and each is answered by one line of JSON:

    topic NAME PARTITIONS    makes a topic, with a leader on every broker in turn
    advertise BROKER PORT    clients are told that the broker is at this port
    down BROKER, up BROKER   ends a broker as by a crash, keeping what it has; starts it again
    fail API CODE TIMES      the next requests of this kind, of any client, fail with this code
    lead TOPIC PART BROKER   makes a broker the leader of a partition

The argument is the number of brokers. The first line of standard output tells their ports. It ends
with its standard input.
"""

import ctypes
import glob
import json
import os
import sys

import confluent_kafka

ERROR_BYTES = 512
PRODUCER = 0


def library():
    """The librdkafka that the package brings."""
    package = os.path.dirname(os.path.dirname(confluent_kafka.__file__))
    (path,) = glob.glob(os.path.join(package, "confluent_kafka.libs", "librdkafka*.so*"))
    found = ctypes.CDLL(path)
    for name in ["conf_new", "new", "mock_cluster_new"]:
        getattr(found, f"rd_kafka_{name}").restype = ctypes.c_void_p
    found.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return found


class Cluster:
    """Brokers, numbered from 1."""

    def __init__(self, brokers):
        self.brokers = brokers
        self.library = library()
        error = ctypes.create_string_buffer(ERROR_BYTES)
        conf = ctypes.c_void_p(self.library.rd_kafka_conf_new())
        client = self.library.rd_kafka_new(PRODUCER, conf, error, ctypes.c_size_t(ERROR_BYTES))
        if not client:
            raise SystemExit(error.value.decode())
        cluster = self.library.rd_kafka_mock_cluster_new(ctypes.c_void_p(client), brokers)
        self.cluster = ctypes.c_void_p(cluster)
        bootstraps = self.library.rd_kafka_mock_cluster_bootstraps(self.cluster).decode()
        self.ports = [int(it.rsplit(":", 1)[1]) for it in bootstraps.split(",")]
        for broker, port in enumerate(self.ports, 1):
            self.advertise(broker, port)

    def call(self, name, *arguments):
        code = getattr(self.library, f"rd_kafka_mock_{name}")(self.cluster, *arguments)
        if code:
            raise ValueError(f"{name}: {code}")

    def topic(self, name, partitions):
        self.call("topic_create", name.encode(), int(partitions), self.brokers)

    def advertise(self, broker, port):
        setter = self.library.rd_kafka_mock_broker_set_host_port
        setter.restype = None
        setter(self.cluster, int(broker), b"127.0.0.1", int(port))

    def down(self, broker):
        self.call("broker_set_down", int(broker))

    def up(self, broker):
        self.call("broker_set_up", int(broker))

    def fail(self, api, code, times):
        codes = (ctypes.c_int * int(times))(*[int(code)] * int(times))
        push = self.library.rd_kafka_mock_push_request_errors_array
        push.restype = None
        push(self.cluster, ctypes.c_int16(int(api)), ctypes.c_size_t(int(times)), codes)

    def lead(self, topic, partition, broker):
        self.call("partition_set_leader", topic.encode(), int(partition), int(broker))


def main():
    cluster = Cluster(int(sys.argv[1]))
    commands = {
        name: getattr(cluster, name)
        for name in ["topic", "advertise", "down", "up", "fail", "lead"]
    }
    print(json.dumps(cluster.ports), flush=True)
    for line in sys.stdin:
        name, *arguments = line.split()
        try:
            answer = {"done": commands[name](*arguments)}
        except Exception as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    # The library's own threads have nothing to finish.
    os._exit(0)


if __name__ == "__main__":
    main()
