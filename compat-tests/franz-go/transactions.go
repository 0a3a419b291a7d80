package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	. "compat/talk"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The scenarios with transactions. A scenario's transactional id has its topic's name.
var transactionScenarios = map[string]Scenario{
	"txn-commit":  txnCommit,
	"txn-abort":   txnAbort,
	"txn-fencing": txnFencing,
	"txn-offsets": txnOffsets,
	"txn-kill-9":  txnKills,
	"txn-admin":   txnAdmin,
}

const partitionCount = 3

func transactional(id string) *kgo.Client {
	return client(kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
}

func each[T any](value T) []T {
	return slices.Repeat([]T{value}, partitionCount)
}

// send puts values into each partition; what they are there.
func send(producer *kgo.Client, topic string, first, last int) [][]string {
	var records []*kgo.Record
	for _, value := range Numbers(first, last) {
		for partition := range int32(partitionCount) {
			records = append(records, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(value)})
		}
	}
	Check(producer.ProduceSync(always, records...).FirstErr())
	return each(Numbers(first, last))
}

// ends is where each partition ends: for read_committed, at its last stable offset.
func ends(topic string, committed bool) []int64 {
	listed := admin.ListEndOffsets
	if committed {
		listed = admin.ListCommittedOffsets
	}
	seen := Must(listed(always, topic))
	Check(seen.Error())
	var ends []int64
	for partition := range int32(partitionCount) {
		ends = append(ends, seen[topic][partition].Offset)
	}
	return ends
}

func endsAt(topic string, wanted int64) {
	Eventually(func() { Same(ends(topic, true), each(wanted)) })
	Same(ends(topic, false), each(wanted))
}

// closed waits until no transaction is open.
func closed(topic string) {
	Eventually(func() { Same(ends(topic, true), ends(topic, false)) })
}

// visible is what each partition holds up to its end. Markers are read too: they may be what is last.
func visible(topic string, committed bool) [][]string {
	options := []kgo.Opt{kgo.KeepControlRecords(), kgo.FetchMaxWait(20 * time.Millisecond)}
	if committed {
		options = append(options, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	left, offsets := 0, map[int32]kgo.Offset{}
	ends := ends(topic, committed)
	for partition, end := range ends {
		if end > 0 {
			left++
			offsets[int32(partition)] = at(0)
		}
	}
	seen := each([]string(nil))
	if left == 0 {
		return seen
	}
	consumer := client(append(options, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}))...)
	defer consumer.Close()
	enough, cancel := context.WithTimeout(always, 40*time.Second)
	defer cancel()
	for left > 0 {
		fetches := consumer.PollFetches(enough)
		Check(fetches.Err())
		for _, record := range fetches.Records() {
			if !record.Attrs.IsControl() {
				seen[record.Partition] = append(seen[record.Partition], string(record.Value))
			}
			if record.Offset == ends[record.Partition]-1 {
				left--
			}
		}
	}
	return seen
}

func txnCommit(topic string) string {
	create(topic, partitionCount)
	producer := transactional(topic)
	defer producer.Close()
	Check(producer.BeginTransaction())
	sent := send(producer, topic, 0, 10)
	Same(ends(topic, false), each(int64(10)))
	Same(ends(topic, true), each(int64(0)))
	Same(visible(topic, false), sent)
	Check(producer.EndTransaction(always, kgo.TryCommit))
	endsAt(topic, 11)
	Same(visible(topic, true), sent)
	Same(visible(topic, false), sent)
	return ""
}

func txnAbort(topic string) string {
	create(topic, partitionCount)
	producer := transactional(topic)
	defer producer.Close()
	Check(producer.BeginTransaction())
	aborted := send(producer, topic, 0, 10)
	Check(producer.EndTransaction(always, kgo.TryAbort))
	endsAt(topic, 11)
	Same(visible(topic, true), each([]string(nil)))
	Same(visible(topic, false), aborted)
	Check(producer.BeginTransaction())
	kept := send(producer, topic, 10, 15)
	Check(producer.EndTransaction(always, kgo.TryCommit))
	endsAt(topic, 17)
	Same(visible(topic, true), kept)
	Same(visible(topic, false), each(Numbers(0, 15)))
	return ""
}

func txnFencing(topic string) string {
	create(topic, partitionCount)
	first := transactional(topic)
	defer first.Close()
	Check(first.BeginTransaction())
	send(first, topic, 0, 5)
	second := transactional(topic)
	defer second.Close()
	_, _, err := second.ProducerID(always)
	Check(err)
	refused(first.EndTransaction(always, kgo.TryCommit), kerr.ProducerFenced, "")
	Check(second.BeginTransaction())
	kept := send(second, topic, 5, 10)
	Check(second.EndTransaction(always, kgo.TryCommit))
	closed(topic)
	Same(visible(topic, true), kept)
	return ""
}

func txnOffsets(topic string) string {
	classic := transform(topic+"-classic", kgo.Balancers(kgo.RangeBalancer()))
	consumer := transform(topic+"-consumer", kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer()))
	return fmt.Sprint(classic, " and ", consumer, " transactions")
}

// transform: ten records in, ten out and their offsets in a transaction: every other one is aborted and done again.
func transform(topic string, options ...kgo.Opt) int {
	target := topic + "-out"
	create(topic, partitionCount)
	create(target, partitionCount)
	var records []*kgo.Record
	for index, value := range Numbers(0, 1000) {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(index % partitionCount), Value: []byte(value)})
	}
	produce(records)
	base := []kgo.Opt{
		kgo.SeedBrokers(Bootstrap),
		kgo.MetadataMinAge(10 * time.Millisecond),
		kgo.TransactionalID(topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ConsumerGroup(topic),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
		kgo.FetchMaxWait(50 * time.Millisecond),
	}
	session := Must(kgo.NewGroupTransactSession(append(base, options...)...))
	committed, copied, transactions := map[int32]int64{}, 0, 0
	for copied < len(records) {
		soon, cancel := context.WithTimeout(always, 30*time.Second)
		fetches := session.PollRecords(soon, 10)
		cancel()
		Check(fetches.Err())
		if fetches.Empty() {
			continue
		}
		ahead := maps.Clone(committed)
		Check(session.Begin())
		var copies []*kgo.Record
		for _, record := range fetches.Records() {
			ahead[record.Partition] = record.Offset + 1
			copies = append(copies, &kgo.Record{Topic: target, Partition: record.Partition, Value: record.Value})
		}
		Check(session.ProduceSync(always, copies...).FirstErr())
		transactions++
		done := Must(session.End(always, kgo.TransactionEndTry(transactions%2 == 0)))
		Same(done, transactions%2 == 0)
		if done {
			committed = ahead
			copied += fetches.NumRecords()
		}
		var wanted []string
		for _, partition := range slices.Sorted(maps.Keys(committed)) {
			wanted = append(wanted, fmt.Sprint(partition, ":", committed[partition]))
		}
		// Until the markers are written there is no answer to who requires stable offsets.
		Eventually(func() { Same(stored(topic), strings.Join(wanted, " ")) })
	}
	session.Close()
	closed(target)
	seen := slices.Concat(visible(target, true)...)
	slices.Sort(seen)
	Same(seen, Numbers(0, 1000))
	Same(len(slices.Concat(visible(target, false)...)) > 1000, true)
	return transactions
}

// txnKills: one record into each partition a transaction, every fourth aborted, while the broker is killed five times.
func txnKills(topic string) string {
	create(topic, partitionCount)
	var (
		lock     sync.Mutex
		outcomes = map[uint32]string{}
		stop     = make(chan struct{})
		stopped  = make(chan struct{})
	)
	set := func(number uint32, outcome string) {
		lock.Lock()
		defer lock.Unlock()
		outcomes[number] = outcome
	}
	count := func(wanted string) (count int) {
		lock.Lock()
		defer lock.Unlock()
		for _, outcome := range outcomes {
			if outcome == wanted {
				count++
			}
		}
		return count
	}
	transact := func(producer *kgo.Client, number uint32) error {
		patience, cancel := context.WithTimeout(always, 60*time.Second)
		defer cancel()
		set(number, "unknown")
		if err := producer.BeginTransaction(); err != nil {
			return err
		}
		var records []*kgo.Record
		for partition := range int32(partitionCount) {
			records = append(records, &kgo.Record{Topic: topic, Partition: partition, Value: binary.BigEndian.AppendUint32(nil, number)})
		}
		if err := producer.ProduceSync(patience, records...).FirstErr(); err != nil {
			return err
		}
		if number%4 == 0 {
			set(number, "aborted")
			return producer.EndTransaction(patience, kgo.TryAbort)
		}
		err := producer.EndTransaction(patience, kgo.TryCommit)
		if err == nil {
			set(number, "committed")
		}
		return err
	}
	go func() {
		defer close(stopped)
		producer := transactional(topic)
		defer func() { producer.Close() }()
		for number := uint32(1); ; number++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := transact(producer, number); err != nil {
				fmt.Fprintln(os.Stderr, number, err)
				producer.Close() // the next one of this id aborts what is open, or waits for its end
				producer = transactional(topic)
			}
		}
	}()
	for range 5 {
		for wanted := count("committed") + 20; count("committed") < wanted; {
			time.Sleep(10 * time.Millisecond)
		}
		Broker("kill")
	}
	close(stop)
	<-stopped
	last := transactional(topic)
	defer last.Close()
	Eventually(func() {
		_, _, err := last.ProducerID(always)
		Check(err)
	})
	closed(topic)

	// Of each transaction one record in every partition, or none in any.
	seen := each(map[uint32]int(nil))
	for partition, values := range visible(topic, true) {
		seen[partition] = map[uint32]int{}
		for _, value := range values {
			seen[partition][binary.BigEndian.Uint32([]byte(value))]++
		}
	}
	var bad []error
	for number, outcome := range outcomes {
		counts := fmt.Sprint(seen[0][number], seen[1][number], seen[2][number])
		whole, none := counts == "1 1 1", counts == "0 0 0"
		if !(whole && outcome != "aborted" || none && outcome != "committed") {
			bad = append(bad, fmt.Errorf("%d %s: %s", number, outcome, counts))
		}
	}
	Check(errors.Join(bad...))
	return fmt.Sprint(count("committed"), " committed, ", count("aborted"), " aborted, ", count("unknown"), " unknown")
}

func txnAdmin(topic string) string {
	create(topic, partitionCount)
	described := func(id string) kadm.DescribedTransaction { return Must(admin.DescribeTransactions(always, id))[id] }
	listed := func(ids []int64, states ...string) string {
		return Must(admin.ListTransactions(always, ids, states))[topic].State
	}
	starts := func() (starts []int64) {
		seen := Must(admin.DescribeProducers(always, kadm.TopicsSet{topic: {0: {}}}))[topic].Partitions[0]
		Check(seen.Err)
		for _, producer := range seen.ActiveProducers {
			starts = append(starts, producer.CurrentTxnStartOffset)
		}
		return starts
	}
	refused(described("not-there").Err, kerr.TransactionalIDNotFound, "")
	producer := transactional(topic)
	defer producer.Close()
	before := time.Now().UnixMilli()
	Check(producer.BeginTransaction())
	send(producer, topic, 0, 10)
	Same(listed(nil), "Ongoing")
	Same(listed(nil, "Ongoing"), "Ongoing")
	Same(listed(nil, "CompleteCommit"), "")
	open := described(topic)
	Check(open.Err)
	Same(fmt.Sprint(open.State, " ", open.Coordinator, " ", open.TimeoutMillis), "Ongoing 1 40000")
	Same(open.Topics.Sorted()[0].Partitions, []int32{0, 1, 2})
	Same(before <= open.StartTimestamp && open.StartTimestamp <= time.Now().UnixMilli(), true)
	Same(starts(), []int64{0})
	Check(producer.EndTransaction(always, kgo.TryCommit))
	Eventually(func() { Same(described(topic).State, "CompleteCommit") })
	over := described(topic)
	Same(len(over.Topics), 0)
	Same(over.ProducerID, open.ProducerID)
	Same(listed([]int64{over.ProducerID}), "CompleteCommit")
	Same(starts(), []int64{-1})
	return ""
}
