"""librdkafka through confluent-kafka, behind the protocol of interop/README.md."""

import json
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

LIMIT = 30.0


def unhex(text):
    return None if text is None else bytes.fromhex(text)


def tohex(data):
    return None if data is None else bytes(data).hex()


def produce(request):
    producer = Producer({
        "bootstrap.servers": request["bootstrap"],
        "compression.codec": request["codec"],
        "acks": request["acks"],
        "enable.idempotence": request["idempotence"],
        "message.max.bytes": 4194304,
        "message.timeout.ms": 45000,
        "linger.ms": 5,
    })
    offsets = [None] * len(request["records"])
    errors = []

    def delivered(index):
        def report(error, message):
            if error is not None:
                errors.append(str(error))
                return
            offset = message.offset()
            offsets[index] = -1 if offset is None or offset < 0 else offset
        return report

    for index, record in enumerate(request["records"]):
        producer.produce(
            request["topic"],
            partition=record["partition"],
            key=unhex(record["key"]),
            value=unhex(record["value"]),
            headers=[(name, unhex(value)) for name, value in record["headers"]],
            timestamp=record["timestamp"],
            on_delivery=delivered(index),
        )
        producer.poll(0)
    unsent = producer.flush(50)
    if errors or unsent:
        raise RuntimeError(f"{unsent} not delivered, errors: {errors[:3]}")
    return {"offsets": offsets}


def consumer(request):
    return Consumer({
        "bootstrap.servers": request["bootstrap"],
        "group.id": "interop",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
    })


def consume(request):
    records = []
    deadline = time.monotonic() + 20
    reader = consumer(request)
    try:
        reader.assign([TopicPartition(request["topic"], request["partition"], request["from"])])
        while len(records) < request["count"] and time.monotonic() < deadline:
            for message in reader.consume(request["count"] - len(records), timeout=0.2):
                if message.error() is not None:
                    raise KafkaException(message.error())
                records.append({
                    "partition": message.partition(),
                    "offset": message.offset(),
                    "timestamp": message.timestamp()[1],
                    "key": tohex(message.key()),
                    "value": tohex(message.value()),
                    "headers": [[name, tohex(value)] for name, value in message.headers() or []],
                })
    finally:
        reader.close()
    return {"records": records}


def watermarks(request):
    reader = consumer(request)
    try:
        partition = TopicPartition(request["topic"], request["partition"])
        low, high = reader.get_watermark_offsets(partition, timeout=LIMIT)
    finally:
        reader.close()
    return {"low": low, "high": high}


def offsets(request):
    reader = consumer(request)
    found = []
    try:
        for timestamp in request["times"]:
            asked = TopicPartition(request["topic"], request["partition"], timestamp)
            [answer] = reader.offsets_for_times([asked], timeout=LIMIT)
            if answer.error is not None:
                raise KafkaException(answer.error)
            found.append(max(answer.offset, -1))
    finally:
        reader.close()
    return {"offsets": found}


def admin(request):
    # Whoever waits for a result must hold the client: collected, it fails what it still owes.
    return AdminClient({"bootstrap.servers": request["bootstrap"]})


def create(request):
    topic = NewTopic(request["topic"], request["partitions"], config=request["configs"])
    client = admin(request)
    client.create_topics([topic])[request["topic"]].result(LIMIT)
    return {}


def delete(request):
    client = admin(request)
    client.delete_topics([request["topic"]])[request["topic"]].result(LIMIT)
    return {}


def topics(request):
    return {"topics": sorted(admin(request).list_topics(timeout=LIMIT).topics)}


class Stream:
    """Writes numbered records, paced, until told to end; keeps what was acknowledged."""

    def __init__(self, request):
        self.acknowledged = []
        self.failed = 0
        self.ending = threading.Event()
        self.topic = request["topic"]
        self.partitions = request["partitions"]
        self.producer = Producer({
            "bootstrap.servers": request["bootstrap"],
            "acks": "all",
            # Without idempotence a retry may write twice, but never out of order: one request in flight.
            "max.in.flight": 5 if request["idempotence"] else 1,
            "enable.idempotence": request["idempotence"],
            "message.timeout.ms": 90000,
            "reconnect.backoff.max.ms": 200,
            "retry.backoff.ms": 50,
            "retry.backoff.max.ms": 200,
            "linger.ms": 2,
        })
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        number = 0
        while not self.ending.is_set():
            for _ in range(10):
                self.write(number)
                number += 1
            # Paces the stream and serves the delivery reports.
            until = time.monotonic() + 0.004
            while time.monotonic() < until:
                self.producer.poll(0.002)
        self.failed += self.producer.flush(90)

    def write(self, number):
        def report(error, message):
            if error is not None:
                self.failed += 1
            else:
                self.acknowledged.append([message.partition(), message.offset(), number])

        while True:
            try:
                self.producer.produce(
                    self.topic,
                    partition=number % self.partitions,
                    value=b"%010d" % number,
                    on_delivery=report,
                )
                return
            except BufferError:
                self.producer.poll(0.05)


class Streams:
    current = None

    @classmethod
    def start(cls, request):
        cls.current = Stream(request)
        return {}

    @classmethod
    def progress(cls, _request):
        return {"acknowledged": len(cls.current.acknowledged)}

    @classmethod
    def end(cls, _request):
        cls.current.ending.set()
        cls.current.thread.join(100)
        return {"acknowledged": cls.current.acknowledged, "failed": cls.current.failed}


VERBS = {
    "produce": produce,
    "consume": consume,
    "watermarks": watermarks,
    "offsets": offsets,
    "create": create,
    "delete": delete,
    "topics": topics,
    "start-stream": Streams.start,
    "stream-progress": Streams.progress,
    "end-stream": Streams.end,
}


def main():
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = VERBS[request["do"]](request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
