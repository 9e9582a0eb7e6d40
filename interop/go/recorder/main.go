// franz-go as a recorder, see "Recorders" in interop/README.md.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	commitEvery = 200 * time.Millisecond
	inFlightMax = 2000
)

var (
	lock       sync.Mutex
	out        = bufio.NewWriterSize(os.Stdout, 1<<16)
	lines      = make(chan string, 16)
	background = context.Background()
	topic      string
	partitions int32
	name       string
	rebalanced atomic.Bool
)

func say(format string, arguments ...any) {
	lock.Lock()
	defer lock.Unlock()
	fmt.Fprintf(out, format+"\n", arguments...)
}

func flush() {
	lock.Lock()
	defer lock.Unlock()
	out.Flush()
}

func number(text string) int64 {
	parsed, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return parsed
}

func value(number int64) []byte {
	filling := strings.Repeat(string(rune('a'+number%26)), int(number%211))
	return []byte(fmt.Sprintf("%s %d %s", name, number, filling))
}

func main() {
	go func() {
		for input := bufio.NewScanner(os.Stdin); input.Scan(); {
			lines <- input.Text()
		}
		// Whoever started us has gone.
		os.Exit(1)
	}()
	arguments := os.Args[1:]
	seeds := kgo.SeedBrokers(strings.Split(arguments[1], ",")...)
	topic, partitions, name = arguments[2], int32(number(arguments[3])), arguments[4]
	switch arguments[0] {
	case "write":
		write(seeds, number(arguments[5]))
	case "read":
		read(seeds)
	case "group":
		group(seeds)
	case "one":
		one(seeds)
	default:
		panic(arguments[0])
	}
	flush()
}

func client(options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(options...)
	if err != nil {
		panic(err)
	}
	return made
}

func producer(options ...kgo.Opt) *kgo.Client {
	manual := kgo.RecordPartitioner(kgo.ManualPartitioner())
	return client(append(options, manual, kgo.RequiredAcks(kgo.AllISRAcks()))...)
}

func write(seeds kgo.Opt, rate int64) {
	producer := producer(seeds, kgo.ProducerLinger(5*time.Millisecond))
	var inFlight atomic.Int64
	started, next := time.Now(), int64(0)
	for len(lines) == 0 {
		due := time.Since(started).Milliseconds() * rate / 1000
		for next < due && inFlight.Load() < inFlightMax {
			each := next
			next++
			inFlight.Add(1)
			record := &kgo.Record{Topic: topic, Partition: int32(each % int64(partitions)), Value: value(each)}
			producer.Produce(background, record, func(record *kgo.Record, err error) {
				inFlight.Add(-1)
				if err != nil {
					say("e %d %v", each, err)
				} else {
					say("a %d %d %d", each, record.Partition, record.Offset)
				}
			})
		}
		flush()
		time.Sleep(5 * time.Millisecond)
	}
	if err := producer.Flush(background); err != nil {
		panic(err)
	}
	say("sent %d", next)
}

// "w PARTITION" writes a record; the answer comes when it is acknowledged. "new" goes on with a new producer.
func one(seeds kgo.Opt) {
	writer := producer(seeds)
	for line := range lines {
		if line == "new" {
			writer.Close()
			writer = producer(seeds)
			continue
		}
		partition, found := strings.CutPrefix(line, "w ")
		if !found {
			return
		}
		record := &kgo.Record{Topic: topic, Partition: int32(number(partition)), Value: []byte("record")}
		if err := writer.ProduceSync(background, record).FirstErr(); err != nil {
			say("e 0 %v", err)
		} else {
			say("ok")
		}
		flush()
	}
}

// poll hands on records until all partitions are read up to "end OFFSET…".
func poll(consumer *kgo.Client, see func(*kgo.Record), after func(positions map[int32]int64)) {
	reached, positions := map[int32]int64{}, map[int32]int64{}
	var ends []string
	for !hasReached(reached, ends) {
		ctx, cancel := context.WithTimeout(background, 50*time.Millisecond)
		fetches := consumer.PollFetches(ctx)
		cancel()
		fetches.EachError(func(_ string, _ int32, err error) {
			// Nothing came within the time of a poll.
			if !errors.Is(err, context.DeadlineExceeded) {
				complain(err)
			}
		})
		if rebalanced.Swap(false) {
			// Who joins anew begins where it has committed, and must not commit where it was.
			clear(positions)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			see(record)
			reached[record.Partition] = record.Offset + 1
			positions[record.Partition] = record.Offset + 1
		})
		after(positions)
		consumer.AllowRebalance()
		flush()
		select {
		case line := <-lines:
			ends = strings.Split(line, " ")[1:]
		default:
		}
	}
	say("done")
}

func hasReached(positions map[int32]int64, ends []string) bool {
	for partition, end := range ends {
		if positions[int32(partition)] < number(end) {
			return false
		}
	}
	return ends != nil
}

func read(seeds kgo.Opt) {
	from := map[int32]kgo.Offset{}
	for partition := range partitions {
		from[partition] = kgo.NewOffset().At(0)
	}
	// An offset out of range is an error, not a reason to begin anew.
	consumer := client(seeds, kgo.FetchMaxWait(100*time.Millisecond), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	poll(consumer, func(record *kgo.Record) {
		say("r %d %d %s", record.Partition, record.Offset, record.Value)
	}, func(map[int32]int64) {})
}

// group commits again and again, and says so when it is given again what it has committed.
func group(seeds kgo.Opt) {
	changed := func(context.Context, *kgo.Client, map[string][]int32) { rebalanced.Store(true) }
	consumer := client(seeds, kgo.FetchMaxWait(100*time.Millisecond), kgo.ConsumerGroup(name),
		kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.BlockRebalanceOnPoll(), kgo.OnPartitionsAssigned(changed), kgo.OnPartitionsRevoked(changed),
		kgo.OnPartitionsLost(changed))
	committed, latest := map[int32]int64{}, time.Now()
	poll(consumer, func(record *kgo.Record) {
		if before := committed[record.Partition]; record.Offset < before {
			say("back %d %d %d", record.Partition, record.Offset, before)
		}
	}, func(positions map[int32]int64) {
		if time.Since(latest) < commitEvery || len(positions) == 0 {
			return
		}
		latest = time.Now()
		if commit(consumer, positions) {
			for partition, offset := range positions {
				committed[partition] = offset
				say("c %d %d", partition, offset)
			}
		}
	})
}

// A commit that fails is no promise.
func commit(consumer *kgo.Client, positions map[int32]int64) bool {
	uncommitted := map[string]map[int32]kgo.EpochOffset{topic: {}}
	for partition, offset := range positions {
		uncommitted[topic][partition] = kgo.EpochOffset{Epoch: -1, Offset: offset}
	}
	ctx, cancel := context.WithTimeout(background, 10*time.Second)
	defer cancel()
	var failure error
	done := make(chan struct{})
	consumer.CommitOffsetsSync(ctx, uncommitted, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
		failure = err
		if response != nil {
			for _, topic := range response.Topics {
				for _, partition := range topic.Partitions {
					if failure == nil {
						failure = kerr.ErrorForCode(partition.ErrorCode)
					}
				}
			}
		}
		close(done)
	})
	<-done
	if failure != nil {
		complain(failure)
	}
	return failure == nil
}

// complain says a broker's error by Kafka's code, 0 where nobody answered in time, -1 for anything else.
func complain(err error) {
	code := int16(-1)
	var answer *kerr.Error
	var network net.Error
	switch {
	case errors.As(err, &answer):
		code = answer.Code
	// Where a member's session ends on a broker that refuses connections, that is wrapped.
	case errors.As(err, &network), errors.Is(err, context.DeadlineExceeded), kgo.IsRetryableBrokerErr(err):
		code = 0
	}
	say("x %d %s", code, strings.ReplaceAll(err.Error(), "\n", " "))
}
