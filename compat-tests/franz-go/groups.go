package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	. "compat/talk"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The scenarios with groups, and the one with compaction. A group has its topic's name.
var groupScenarios = map[string]Scenario{
	"group-consume":           groupConsume,
	"group-two-members":       groupTwoMembers,
	"group-cooperative":       groupCooperative,
	"group-static":            groupStatic,
	"group-consumer-protocol": groupConsumerProtocol,
	"group-member-killed":     groupMemberKilled,
	"group-reset":             groupReset,
	"group-lag":               groupLag,
	"group-kill-9":            groupKills,
	"offsets":                 groupOffsets,
	"groups-admin":            groupsAdmin,
	"compacted-topic":         compactedTopic,
}

// A member is a consumer in a group, with all that came to it and all that was taken from it.
type member struct {
	*kgo.Client
	records []*kgo.Record
	lock    sync.Mutex
	owned   map[string]bool
	given   int
	taken   [][]string
}

func join(group string, options ...kgo.Opt) *member {
	m := &member{owned: map[string]bool{}}
	base := []kgo.Opt{
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.FetchMaxWait(50 * time.Millisecond),
		kgo.HeartbeatInterval(500 * time.Millisecond),
		kgo.MetadataMaxAge(500 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, given map[string][]int32) {
			m.lock.Lock()
			defer m.lock.Unlock()
			m.given++
			for _, name := range names(given) {
				m.owned[name] = true
			}
		}),
		kgo.OnPartitionsRevoked(m.lose),
		kgo.OnPartitionsLost(m.lose),
	}
	m.Client = client(append(base, options...)...)
	return m
}

func (m *member) lose(_ context.Context, _ *kgo.Client, taken map[string][]int32) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if lost := names(taken); len(lost) > 0 {
		m.taken = append(m.taken, lost)
		for _, name := range lost {
			delete(m.owned, name)
		}
	}
}

func (m *member) poll(count int) {
	soon, cancel := context.WithTimeout(always, 50*time.Millisecond)
	defer cancel()
	m.records = append(m.records, m.PollRecords(soon, count).Records()...)
}

func (m *member) has() string {
	m.lock.Lock()
	defer m.lock.Unlock()
	var owned []string
	for name := range m.owned {
		owned = append(owned, name)
	}
	slices.Sort(owned)
	return strings.Join(owned, " ")
}

// rebalances counts what its callbacks were told.
func (m *member) rebalances() int {
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.given + len(m.taken)
}

func names(partitions map[string][]int32) []string {
	var names []string
	for topic, indexes := range partitions {
		for _, index := range indexes {
			names = append(names, fmt.Sprint(topic, "-", index))
		}
	}
	slices.Sort(names)
	return names
}

func all(topic string) string {
	return strings.Join(names(map[string][]int32{topic: {0, 1, 2, 3}}), " ")
}

// together lets the members read in turn until what is wanted holds.
func together(wanted func() bool, members ...*member) {
	Eventually(func() {
		for _, member := range members {
			member.poll(-1)
		}
		Same(wanted(), true)
	})
}

func bothHaveTwo(topic string, a, b *member) bool {
	owned := append(strings.Fields(a.has()), strings.Fields(b.has())...)
	slices.Sort(owned)
	return len(strings.Fields(a.has())) == 2 && strings.Join(owned, " ") == all(topic)
}

// spread is records into each of four partitions, numbered from first to before last; their values.
func spread(topic string, first, last int) []string {
	var sent []*kgo.Record
	for partition := range int32(4) {
		for number := first; number < last; number++ {
			sent = append(sent, &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Appendf(nil, "%d-%d", partition, number)})
		}
	}
	produce(sent)
	return sorted(sent)
}

func sorted(records ...[]*kgo.Record) []string {
	texts := values(slices.Concat(records...))
	slices.Sort(texts)
	return texts
}

func groupConsume(topic string) string {
	create(topic, 1)
	produce(records(topic, Numbers(0, 100)))
	first := join(topic)
	together(func() bool { return len(first.records) == 100 }, first)
	Same(values(first.records), Numbers(0, 100))
	Check(first.CommitUncommittedOffsets(always))
	first.Close()
	Broker("restart")
	produce(records(topic, Numbers(100, 150)))
	second := join(topic)
	defer second.Close()
	together(func() bool { return len(second.records) >= 50 }, second)
	Same(values(second.records), Numbers(100, 150))
	return ""
}

// share: two members with two partitions each; every record once; what one leaves the other gets.
func share(topic string, options ...kgo.Opt) {
	create(topic, 4)
	a, b := join(topic, options...), join(topic, options...)
	defer a.Close()
	together(func() bool { return bothHaveTwo(topic, a, b) }, a, b)
	sent := spread(topic, 0, 25)
	together(func() bool { return len(a.records)+len(b.records) >= len(sent) }, a, b)
	Same(sorted(a.records, b.records), sent)
	Same(len(a.records), 50)
	Check(a.CommitUncommittedOffsets(always))
	Check(b.CommitUncommittedOffsets(always))
	b.Close()
	together(func() bool { return a.has() == all(topic) }, a)
	a.records = nil
	more := spread(topic, 25, 30)
	together(func() bool { return len(a.records) >= len(more) }, a)
	Same(sorted(a.records), more)
}

func groupTwoMembers(topic string) string {
	share(topic, kgo.Balancers(kgo.RangeBalancer()))
	return ""
}

func groupCooperative(topic string) string {
	create(topic, 4)
	sticky := kgo.Balancers(kgo.CooperativeStickyBalancer())
	a := join(topic, sticky)
	defer a.Close()
	together(func() bool { return a.has() == all(topic) }, a)
	b := join(topic, sticky)
	together(func() bool { return bothHaveTwo(topic, a, b) }, a, b)
	Same(a.taken, [][]string{strings.Fields(b.has())}) // what stays is not revoked
	b.Close()
	together(func() bool { return a.has() == all(topic) }, a)
	Same(len(a.taken), 1)
	return ""
}

func groupStatic(topic string) string {
	create(topic, 4)
	static := func(id string) *member {
		return join(topic, kgo.Balancers(kgo.RangeBalancer()), kgo.InstanceID(id), kgo.SessionTimeout(30*time.Second))
	}
	a, b := static("a"), static("b")
	defer a.Close()
	together(func() bool { return bothHaveTwo(topic, a, b) }, a, b)
	before, rebalances := b.has(), a.rebalances()
	_, generation := b.GroupMetadata()
	b.Close() // a static member says nothing when it goes
	b = static("b")
	defer b.Close()
	together(func() bool { return b.has() == before }, a, b)
	_, again := b.GroupMetadata()
	Same(again, generation)
	sent := spread(topic, 0, 5)
	together(func() bool { return len(a.records)+len(b.records) == len(sent) }, a, b)
	Same(a.rebalances(), rebalances)
	seen := Must(admin.DescribeGroups(always, topic))[topic]
	Same(len(seen.Members), 2)
	Same(*seen.Members[0].InstanceID+*seen.Members[1].InstanceID, "ab")
	return ""
}

func groupConsumerProtocol(topic string) string {
	share(topic, kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer()))
	create(topic+".1", 2)
	// The expression is the client's to evaluate: it names topics to the server.
	regex := join(topic+"-regex", kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer()),
		kgo.ConsumeRegex(), kgo.ConsumeTopics("^"+topic+"[.][0-9]+$"))
	defer regex.Close()
	first := topic + ".1-0 " + topic + ".1-1"
	together(func() bool { return regex.has() == first }, regex)
	create(topic+".2", 1)
	together(func() bool { return regex.has() == first+" "+topic+".2-0" }, regex)
	seen := Must(admin.DescribeConsumerGroups(always, topic+"-regex"))[topic+"-regex"]
	Check(seen.Err)
	Same(fmt.Sprint(seen.State, " ", seen.AssignorName, " ", len(seen.Members)), "Stable uniform 1")
	Same(seen.Epoch, seen.AssignmentEpoch)
	return ""
}

// A member that is to be killed has the shortest session the broker grants; with the new protocol that is the broker's to say.
func killable(topic, protocol string) *member {
	if protocol == "consumer" {
		return join(topic, kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer()))
	}
	return join(topic, kgo.Balancers(kgo.RangeBalancer()), kgo.SessionTimeout(6*time.Second))
}

// alone is the program as a member in a process of its own, which commits what it reads, until it is killed.
func alone(topic, protocol string) {
	member := killable(topic, protocol)
	for {
		member.poll(-1)
		Check(member.CommitUncommittedOffsets(always))
	}
}

// groupMemberKilled: a member is killed and says nothing: in time the other has its partitions, from what was committed.
func groupMemberKilled(topic string) string {
	takesOver(topic, "classic")
	takesOver(topic+"-consumer", "consumer")
	return ""
}

func takesOver(topic, protocol string) {
	create(topic, 4)
	a := killable(topic, protocol)
	defer a.Close()
	together(func() bool { return a.has() == all(topic) }, a)
	b := exec.Command(os.Args[0], topic, protocol)
	b.Stderr = os.Stderr
	Check(b.Start())
	defer b.Process.Kill()
	together(func() bool { return len(strings.Fields(a.has())) == 2 }, a)
	spread(topic, 0, 5)
	together(func() bool { return len(a.records) == 10 && strings.Count(stored(topic), ":5") == 2 }, a)
	Check(a.CommitUncommittedOffsets(always))
	Same(stored(topic), "0:5 1:5 2:5 3:5")
	Check(b.Process.Kill())
	b.Wait() // says that it was killed
	together(func() bool { return a.has() == all(topic) }, a)
	a.records = nil
	more := spread(topic, 5, 8)
	together(func() bool { return len(a.records) >= len(more) }, a)
	Same(sorted(a.records), more)
}

func groupReset(topic string) string {
	create(topic, 1)
	produce(records(topic, Numbers(0, 100)))
	begins := func(group string, each func(), options ...kgo.Opt) int64 {
		member := join(topic+group, append(options, kgo.ConsumeTopics(topic))...)
		defer member.Close()
		together(func() bool { return member.has() != "" }, member)
		together(func() bool { each(); return len(member.records) > 0 }, member)
		return member.records[0].Offset
	}
	Same(begins("-earliest", func() {}), 0)
	latest := begins("-latest", func() { produce(records(topic, Numbers(0, 1))) }, kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))
	Same(latest >= 100, true)
	Check(commit(topic+"-before", offset(topic, 0, 10, "")))
	var before kadm.Offsets
	before.Add(kadm.Offset{Topic: topic, Partition: 0, At: 40})
	Check(Must(admin.DeleteRecords(always, before)).Error())
	Same(begins("-before", func() {}), 40)
	return ""
}

func groupLag(topic string) string {
	create(topic, 1)
	produce(records(topic, Numbers(0, 100)))
	Eventually(func() { Check(commit(topic, offset(topic, 0, 40, ""))) })
	seen := Must(admin.Lag(always, topic))[topic]
	Check(seen.Error())
	Same(fmt.Sprint(seen.State, " ", seen.Lag[topic][0].Commit.At, " ", seen.Lag[topic][0].End.Offset, " ", seen.Lag.Total()), "Empty 40 100 60")
	return ""
}

func groupKills(topic string) string {
	create(topic, 1)
	produce(records(topic, Numbers(0, 20_000)))
	classic := throughKills(topic, topic+"-classic")
	consumer := throughKills(topic, topic+"-consumer", kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer()))
	return fmt.Sprint(classic, " and ", consumer, " committed")
}

// throughKills: a member commits after every batch through a kill; another goes on from what is committed; three times.
func throughKills(topic, group string, options ...kgo.Opt) int64 {
	read, acknowledged := int64(0), int64(0)
	for range 3 {
		member := join(group, append(options, kgo.ConsumeTopics(topic))...)
		Eventually(func() {
			member.poll(10)
			Same(len(member.records) > 0, true)
		})
		next := member.records[0].Offset
		Same(acknowledged <= next && next <= read, true)
		killed := make(chan bool, 1)
		killing := false
		for batches := 0; !killing || len(killed) == 0 || batches < 3; member.poll(10) {
			if len(member.records) > 0 {
				// After the broker was away it may have to join anew, and then reads again from what is committed.
				if first := member.records[0].Offset; first < next {
					Same(acknowledged <= first, true)
					next = first
				}
				for _, record := range member.records {
					Same(record.Offset, next)
					next++
				}
				read = max(read, next)
				// It tries again by itself: what is not acknowledged in this time may be there or not.
				patience, cancel := context.WithTimeout(always, 10*time.Second)
				if member.CommitRecords(patience, member.records...) == nil {
					acknowledged = next
					batches++
				} else {
					// Without a broker it fails at once: what has been fetched has to last until there is one again.
					time.Sleep(500 * time.Millisecond)
				}
				cancel()
				member.records = nil
			}
			if !killing && batches == 20 {
				killing, batches = true, 0
				go func() {
					Broker("kill")
					killed <- true
				}()
			}
		}
		member.Close()
	}
	Eventually(func() {
		Same(stored(group), fmt.Sprint("0:", acknowledged))
	})
	return acknowledged
}

// stored is "partition:offset" of a group's topic of the same name.
func stored(group string) string {
	var seen []string
	for _, offset := range Must(admin.FetchOffsets(always, group)).Sorted() {
		Check(offset.Err)
		seen = append(seen, fmt.Sprint(offset.Partition, ":", offset.At))
	}
	return strings.Join(seen, " ")
}

func offset(topic string, partition int32, at int64, metadata string) kadm.Offsets {
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: at, LeaderEpoch: -1, Metadata: metadata})
	return offsets
}

func commit(group string, offsets kadm.Offsets) error {
	return Must(admin.CommitOffsets(always, group, offsets)).Error()
}

func groupOffsets(topic string) string {
	create(topic, 2)
	Eventually(func() { Check(commit(topic, offset(topic, 0, 42, "a note"))) })
	seen := Must(admin.FetchOffsetsForTopics(always, topic, topic))
	Same(fmt.Sprint(seen[topic][0].At, seen[topic][0].Metadata, seen[topic][1].At), "42a note-1")
	refused(commit(topic, offset(topic, 7, 1, "")), kerr.UnknownTopicOrPartition, "")
	refused(commit(topic, offset(topic, 0, 43, strings.Repeat("x", 4097))), kerr.OffsetMetadataTooLarge, "")
	Same(stored(topic), "0:42")
	Check(commit(topic, offset(topic, 0, 43, strings.Repeat("x", 4096))))
	Same(stored(topic), "0:43")

	as := func(group, member string, generation int32) error {
		request := kmsg.NewPtrOffsetCommitRequest()
		request.Group, request.MemberID, request.Generation = group, member, generation
		asked, partition := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
		asked.Topic, asked.TopicID, partition.Offset = topic, describe(topic).ID, 1
		asked.Partitions = append(asked.Partitions, partition)
		request.Topics = append(request.Topics, asked)
		response := Must(request.RequestWith(always, client()))
		return kerr.ErrorForCode(response.Topics[0].Partitions[0].ErrorCode)
	}
	refused(as(topic, "nobody", 0), kerr.UnknownMemberID, "")
	alive := join(topic+"-alive", kgo.ConsumeTopics(topic), kgo.Balancers(kgo.RangeBalancer()))
	defer alive.Close()
	together(func() bool { return alive.has() != "" }, alive)
	id, generation := alive.GroupMetadata()
	refused(as(topic+"-alive", "nobody", generation), kerr.UnknownMemberID, "")
	refused(as(topic+"-alive", "", -1), kerr.UnknownMemberID, "")
	refused(as(topic+"-alive", id, generation+1), kerr.IllegalGeneration, "")
	Check(as(topic+"-alive", id, generation))
	return ""
}

func groupsAdmin(topic string) string {
	create(topic, 2)
	produce(records(topic, Numbers(0, 10)))
	listed := func(types []string, states ...string) string {
		group, there := Must(admin.ListGroupsByType(always, types, states...))[topic]
		if !there {
			return ""
		}
		return group.State + " " + group.ProtocolType
	}
	gone := func() error { return Must(admin.DeleteGroups(always, topic))[topic].Err }
	Same(listed(nil), "")
	refused(gone(), kerr.GroupIDNotFound, "")
	missing := Must(admin.DescribeGroups(always, topic))[topic]
	refused(missing.Err, kerr.GroupIDNotFound, "")
	Same(missing.ErrMessage, "Group groups-admin not found.")
	zero := kadm.TopicsSet{topic: {0: {}}}
	unset := func() error { return Must(admin.DeleteOffsets(always, topic, zero)).Error() }

	alive := join(topic, kgo.Balancers(kgo.RangeBalancer()), kgo.ClientID("a client"))
	together(func() bool { return len(alive.records) == 10 }, alive)
	Check(alive.CommitUncommittedOffsets(always))
	Same(listed(nil), "Stable consumer")
	Same(listed(nil, "Empty"), "")
	Same(listed([]string{"consumer"}), "")
	Same(listed([]string{"classic"}, "Stable"), "Stable consumer")
	seen := Must(admin.DescribeGroups(always, topic))[topic]
	Check(seen.Err)
	Same(fmt.Sprint(seen.State, " ", seen.ProtocolType, " ", seen.Protocol, " ", seen.Coordinator.NodeID), "Stable consumer range 1")
	Same(seen.Members[0].ClientID+" "+seen.Members[0].ClientHost, "a client /127.0.0.1")
	Same(seen.AssignedPartitions().Sorted()[0].Partitions, []int32{0, 1})
	Same(stored(topic), "0:10")
	refused(commit(topic, offset(topic, 0, 3, "")), kerr.UnknownMemberID, "")
	refused(unset(), kerr.GroupSubscribedToTopic, "")
	refused(gone(), kerr.NonEmptyGroup, "")
	alive.Close()

	Eventually(func() { Same(listed(nil), "Empty consumer") })
	Check(commit(topic, offset(topic, 0, 3, "")))
	Check(commit(topic, offset(topic, 1, 1, "")))
	Same(stored(topic), "0:3 1:1")
	Check(unset())
	Same(stored(topic), "1:1")
	Check(gone())
	Same(listed(nil), "")
	Same(stored(topic), "")
	return ""
}

func compactedTopic(topic string) string {
	create(topic, 1, "cleanup.policy", "compact", "segment.bytes", "1048576", "min.cleanable.dirty.ratio", "0.01", "delete.retention.ms", "100")
	var updates []*kgo.Record
	for number := range 200 {
		for key := range 5 {
			updates = append(updates, &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "key-%d", key), Value: fmt.Append(nil, number)})
		}
	}
	produce(append(updates, &kgo.Record{Topic: topic, Key: []byte("key-0")}))
	Eventually(func() {
		// What is written last stays in the active segment, which is never cleaned: so it has to be passed on.
		filler := &kgo.Record{Topic: topic, Key: []byte("filler"), Value: random(600_000)}
		end := produce([]*kgo.Record{filler})[0]
		var left []string
		consumer := client(from(topic, 0, kgo.NewOffset().AtStart()))
		defer consumer.Close()
		for last := int64(-1); last < end; {
			for _, record := range consumer.PollFetches(always).Records() {
				last = record.Offset
				if string(record.Key) != "filler" {
					left = append(left, fmt.Sprintf("%d %s %s", record.Offset, record.Key, record.Value))
				}
			}
		}
		Same(left, []string{"996 key-1 199", "997 key-2 199", "998 key-3 199", "999 key-4 199"})
	})
	return ""
}
