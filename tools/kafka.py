"""The mock cluster of librdkafka, told what to do by lines on standard input.

Each line is a command with its arguments, and each is answered by one line of JSON:

    topic NAME PARTITIONS    makes a topic, with a leader on every broker in turn
    advertise BROKER PORT    clients are told that the broker is at this port
    down BROKER, up BROKER   ends a broker as by a crash, keeping what it has; starts it again
    fail API CODE TIMES      the next requests of this kind, of any client, fail with this code
    clear API                those that are left do not
    lead TOPIC PART BROKER   makes a broker the leader of a partition

The argument is the number of brokers. The first line of standard output tells their ports. It ends
with its standard input.
"""

import ctypes
import glob
import json
import os
import socket
import struct
import sys
import threading

import confluent_kafka

ERROR_BYTES = 512
PRODUCER = 0
PIECE_BYTES = 64 << 10
# The versions of the question which versions there are, and the code for one that is not known.
API_VERSIONS = 18
NEWEST_KNOWN = 2
UNSUPPORTED_VERSION = 35


class Relay:
    """Leads to a broker, and answers one question in its place.

    Whoever asks for versions in a version that is too new is to be told so in the oldest one, as
    Kafka does; the mock cluster tells it in a form that is none.
    """

    def __init__(self, port):
        self.broker = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=[client], daemon=True).start()

    def serve(self, client):
        with client:
            try:
                server = socket.create_connection(("127.0.0.1", self.broker))
            except OSError:
                return
            with server:
                for one in client, server:
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                first = self.greet(client)
                if first:
                    server.sendall(first)
                    back = threading.Thread(target=self.pump, args=[server, client], daemon=True)
                    back.start()
                    self.pump(client, server)
                    back.join()

    @staticmethod
    def greet(client):
        """Answers what is asked in too new a version; the first request that is not."""
        while True:
            head = client.recv(4, socket.MSG_WAITALL)
            if len(head) < 4:
                return b""
            request = client.recv(struct.unpack(">i", head)[0], socket.MSG_WAITALL)
            api, version, number = struct.unpack(">hhi", request[:8])
            if api != API_VERSIONS or version <= NEWEST_KNOWN:
                return head + request
            known = struct.pack(">ihhh", 1, API_VERSIONS, 0, NEWEST_KNOWN)
            answer = struct.pack(">ih", number, UNSUPPORTED_VERSION) + known
            client.sendall(struct.pack(">i", len(answer)) + answer)

    @staticmethod
    def pump(source, target):
        try:
            while piece := source.recv(PIECE_BYTES):
                target.sendall(piece)
        except OSError:
            pass
        for one in source, target:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


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

    def __init__(self, count):
        self.count = count
        self.library = library()
        error = ctypes.create_string_buffer(ERROR_BYTES)
        conf = ctypes.c_void_p(self.library.rd_kafka_conf_new())
        client = self.library.rd_kafka_new(PRODUCER, conf, error, ctypes.c_size_t(ERROR_BYTES))
        if not client:
            raise SystemExit(error.value.decode())
        cluster = self.library.rd_kafka_mock_cluster_new(ctypes.c_void_p(client), count)
        self.cluster = ctypes.c_void_p(cluster)
        bootstraps = self.library.rd_kafka_mock_cluster_bootstraps(self.cluster).decode()
        brokers = [int(it.rsplit(":", 1)[1]) for it in bootstraps.split(",")]
        self.ports = [Relay(it).port for it in brokers]
        for broker, port in enumerate(self.ports, 1):
            self.advertise(broker, port)

    def call(self, name, *arguments):
        code = getattr(self.library, f"rd_kafka_mock_{name}")(self.cluster, *arguments)
        if code:
            raise ValueError(f"{name}: {code}")

    def topic(self, name, partitions):
        self.call("topic_create", name.encode(), int(partitions), self.count)

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

    def clear(self, api):
        clear = self.library.rd_kafka_mock_clear_request_errors
        clear.restype = None
        clear(self.cluster, ctypes.c_int16(int(api)))

    def lead(self, topic, partition, broker):
        self.call("partition_set_leader", topic.encode(), int(partition), int(broker))


def main():
    cluster = Cluster(int(sys.argv[1]))
    commands = {
        name: getattr(cluster, name)
        for name in ["topic", "advertise", "down", "up", "fail", "clear", "lead"]
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
