"""aiokafka, behind the protocol of interop/README.md."""

import asyncio
import threading
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import for_code

from protocol import LIMIT, Member, serve, tohex, unhex

ASSIGNORS = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor}

# One event loop for everything, in a thread of its own: requests are handled one by one.
LOOP = asyncio.new_event_loop()
threading.Thread(target=LOOP.run_forever, daemon=True).start()


def wait(work):
    return asyncio.run_coroutine_threadsafe(work, LOOP).result(110)


def waiting(work):
    return lambda request: wait(work(request)) or {}


async def produce(request):
    codec = request["codec"]
    acks = request["acks"]
    producer = AIOKafkaProducer(
        bootstrap_servers=request["bootstrap"],
        compression_type=None if codec == "none" else codec,
        acks="all" if acks == "all" else int(acks),
        enable_idempotence=request["idempotence"],
        max_request_size=4194304,
        request_timeout_ms=45000,
        linger_ms=5,
    )
    await producer.start()
    try:
        sent = [
            await producer.send(
                request["topic"],
                partition=record["partition"],
                key=unhex(record["key"]),
                value=unhex(record["value"]),
                headers=[(name, unhex(value)) for name, value in record["headers"]],
                timestamp_ms=record["timestamp"],
            )
            for record in request["records"]
        ]
        written = [await future for future in sent]
    finally:
        await producer.stop()
    return {"offsets": [-1 if acks == "0" else at.offset for at in written]}


async def with_consumer(request, ask, **more):
    consumer = AIOKafkaConsumer(
        bootstrap_servers=request["bootstrap"],
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=4194304,
        **more,
    )
    await consumer.start()
    try:
        partition = TopicPartition(request["topic"], request.get("partition", 0))
        return await ask(consumer, partition)
    finally:
        await consumer.stop()


def described(record):
    return {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": tohex(record.key),
        "value": tohex(record.value),
        "headers": [[name, tohex(value)] for name, value in record.headers],
    }


async def consume(request):
    async def read(consumer, partition):
        records = []
        deadline = time.monotonic() + 20
        consumer.assign([partition])
        consumer.seek(partition, request["from"])
        while len(records) < request["count"] and time.monotonic() < deadline:
            wanted = request["count"] - len(records)
            for found in (await consumer.getmany(timeout_ms=200, max_records=wanted)).values():
                records.extend(described(record) for record in found)
        return {"records": records}

    return await with_consumer(request, read)


async def watermarks(request):
    async def ask(consumer, partition):
        low = await consumer.beginning_offsets([partition])
        high = await consumer.end_offsets([partition])
        return {"low": low[partition], "high": high[partition]}

    return await with_consumer(request, ask)


async def offsets(request):
    async def ask(consumer, partition):
        found = [(await consumer.offsets_for_times({partition: at}))[partition]
                 for at in request["times"]]
        return {"offsets": [-1 if offset is None else offset.offset for offset in found]}

    return await with_consumer(request, ask)


def with_admin(ask):
    async def answer(request):
        admin = AIOKafkaAdminClient(bootstrap_servers=request["bootstrap"])
        await admin.start()
        try:
            return await ask(admin, request)
        finally:
            await admin.close()
    return waiting(answer)


def checked(code, what):
    if code:
        raise for_code(code)(str(what))


async def create(admin, request):
    topic = NewTopic(request["topic"], request["partitions"], 1, topic_configs=request["configs"])
    answer = await admin.create_topics([topic])
    for name, code, *message in answer.topic_errors:
        checked(code, f"{name} {message}")


async def delete(admin, request):
    answer = await admin.delete_topics([request["topic"]])
    for name, code in answer.topic_error_codes:
        checked(code, name)


async def topics(admin, _request):
    return {"topics": await admin.list_topics()}


def topic_resource(request, configs=None):
    return ConfigResource(ConfigResourceType.TOPIC, request["topic"], configs)


async def configs(admin, request):
    [answer] = await admin.describe_configs([topic_resource(request)])
    [(code, message, _, _, entries)] = answer.resources
    checked(code, message)
    return {"configs": {entry[0]: entry[1] for entry in entries}}


async def set_configs(admin, request):
    [answer] = await admin.alter_configs([topic_resource(request, request["configs"])])
    for code, message, *_ in answer.resources:
        checked(code, message)


async def partitions(admin, request):
    [topic] = await admin.describe_topics([request["topic"]])
    return {"partitions": len(topic["partitions"])}


async def add_partitions(admin, request):
    await admin.create_partitions({request["topic"]: NewPartitions(request["partitions"])})


async def delete_records(admin, request):
    partition = TopicPartition(request["topic"], request["partition"])
    deleted = await admin.delete_records({partition: RecordsToDelete(request["before"])})
    return {"low": deleted[partition]}


async def groups(admin, _request):
    return {"groups": [group[0] for group in await admin.list_consumer_groups()]}


async def describe_group(admin, request):
    [answer] = await admin.describe_consumer_groups([request["group"]])
    [group] = answer.to_object()["groups"]
    checked(group["error_code"], request["group"])
    members = [
        [
            f"{topic}-{partition}"
            for topic, partitions in assigned(member["member_assignment"])
            for partition in partitions
        ]
        for member in group["members"]
    ]
    return {"state": group["state"], "members": members}


def assigned(assignment):
    from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
    if isinstance(assignment, bytes):
        assignment = ConsumerProtocolMemberAssignment.decode(assignment)
    return assignment.assignment


async def committed(admin, request):
    found = await admin.list_consumer_group_offsets(request["group"])
    return {"offsets": {
        str(at.partition): offset.offset
        for at, offset in found.items() if at.topic == request["topic"]
    }}


async def commit(request):
    async def ask(consumer, _partition):
        wanted = {
            TopicPartition(request["topic"], int(partition)): offset
            for partition, offset in request["offsets"].items()
        }
        consumer.assign(list(wanted))
        await consumer.commit(wanted)

    return await with_consumer(request, ask, group_id=request["group"])


class GroupMember(Member):
    def open(self, request):
        async def open():
            self.client = AIOKafkaConsumer(
                request["topic"],
                bootstrap_servers=request["bootstrap"],
                group_id=request["group"],
                group_instance_id=request["instance"],
                session_timeout_ms=request["session"],
                heartbeat_interval_ms=300,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                metadata_max_age_ms=1000,
                partition_assignment_strategy=[ASSIGNORS[request["assignor"]]],
            )
            await self.client.start()
        wait(open())

    def poll(self):
        found = wait(self.client.getmany(timeout_ms=100))
        return [described(record) for records in found.values() for record in records]

    def assigned(self):
        return [f"{at.topic}-{at.partition}" for at in self.client.assignment()]

    def commit(self):
        wait(self.client.commit())

    def shut(self):
        wait(self.client.stop())


serve({
    "produce": waiting(produce),
    "consume": waiting(consume),
    "watermarks": waiting(watermarks),
    "offsets": waiting(offsets),
    "create": with_admin(create),
    "delete": with_admin(delete),
    "topics": with_admin(topics),
    "configs": with_admin(configs),
    "set-configs": with_admin(set_configs),
    "partitions": with_admin(partitions),
    "add-partitions": with_admin(add_partitions),
    "delete-records": with_admin(delete_records),
    "groups": with_admin(groups),
    "describe-group": with_admin(describe_group),
    "committed": with_admin(committed),
    "commit": waiting(commit),
    **GroupMember.verbs(),
})
