package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	. "compat/talk"

	"github.com/segmentio/kafka-go"
)

// The scenarios with groups. A group has its topic's name.
var groupScenarios = map[string]Scenario{
	"group-consume":       groupConsume,
	"group-two-members":   groupTwoMembers,
	"group-member-killed": groupMemberKilled,
	"group-reset":         groupReset,
	"group-kill-9":        groupKills,
	"offsets":             groupOffsets,
	"groups-admin":        groupsAdmin,
}

func join(topic string, options ...func(*kafka.ReaderConfig)) *kafka.Reader {
	config := kafka.ReaderConfig{
		Brokers: []string{Bootstrap}, GroupID: topic, Topic: topic, MaxWait: 50 * time.Millisecond,
		HeartbeatInterval: 500 * time.Millisecond, JoinGroupBackoff: 100 * time.Millisecond,
		StartOffset: kafka.FirstOffset, GroupBalancers: []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
	}
	for _, option := range options {
		option(&config)
	}
	return kafka.NewReader(config)
}

// fetch is the next messages without a commit.
func fetch(reader *kafka.Reader, count int) []kafka.Message {
	enough, cancel := context.WithTimeout(always, 180*time.Second)
	defer cancel()
	var messages []kafka.Message
	for len(messages) < count {
		message, err := reader.FetchMessage(enough)
		// Of the broker's answers it hands some to its user who has but to ask again.
		var answer kafka.Error
		if errors.As(err, &answer) && answer.Temporary() {
			continue
		}
		Check(err)
		messages = append(messages, message)
	}
	return messages
}

// members is the number of partitions each member of a stable group has.
func members(group string) []int {
	seen := Must(client.DescribeGroups(always, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})).Groups[0]
	Check(seen.Error)
	Same(seen.GroupState, "Stable")
	counts := []int{}
	for _, member := range seen.Members {
		count := 0
		for _, topic := range member.MemberAssignments.Topics {
			count += len(topic.Partitions)
		}
		counts = append(counts, count)
	}
	return counts
}

func groupConsume(topic string) string {
	create(topic, 1)
	write(writer(), messages(topic, Numbers(0, 100))...)
	first := join(topic)
	seen := fetch(first, 100)
	Same(values(seen), Numbers(0, 100))
	Check(first.CommitMessages(always, seen...))
	Check(first.Close())
	Broker("restart")
	Eventually(func() { write(writer(), messages(topic, Numbers(100, 150))...) })
	second := join(topic)
	defer second.Close()
	Same(values(fetch(second, 50)), Numbers(100, 150))
	return ""
}

// spread is records into each of four partitions, numbered from first to before last; their values.
func spread(topic string, first, last int) []string {
	var sent []kafka.Message
	for number := first; number < last; number++ {
		for partition := range 4 {
			sent = append(sent, kafka.Message{Topic: topic, Value: fmt.Appendf(nil, "%d-%d", partition, number)})
		}
	}
	write(writer(func(writer *kafka.Writer) { writer.Balancer = &kafka.RoundRobin{} }), sent...)
	texts := values(sent)
	slices.Sort(texts)
	return texts
}

func groupTwoMembers(topic string) string {
	create(topic, 4)
	a, b := join(topic), join(topic)
	defer a.Close()
	Eventually(func() { Same(members(topic), []int{2, 2}) })
	sent := spread(topic, 0, 25)
	ofA, ofB := fetch(a, 50), fetch(b, 50)
	texts := values(append(slices.Clone(ofA), ofB...))
	slices.Sort(texts)
	Same(texts, sent)
	Check(a.CommitMessages(always, ofA...))
	Check(b.CommitMessages(always, ofB...))
	Check(b.Close())
	Eventually(func() { Same(members(topic), []int{4}) })
	more := spread(topic, 25, 30)
	texts = values(fetch(a, len(more)))
	slices.Sort(texts)
	Same(texts, more)
	return ""
}

func briefly(config *kafka.ReaderConfig) { config.SessionTimeout = 6 * time.Second }

// alone is the program as a member in a process of its own, which commits what it reads, until it is killed.
func alone(topic string) {
	member := join(topic, briefly)
	for {
		Check(member.CommitMessages(always, fetch(member, 1)...))
	}
}

// groupMemberKilled: a member is killed and says nothing: in time the other has its partitions, from what was committed.
func groupMemberKilled(topic string) string {
	create(topic, 4)
	a := join(topic, briefly)
	defer a.Close()
	Eventually(func() { Same(members(topic), []int{4}) })
	b := exec.Command(os.Args[0], topic)
	b.Stderr = os.Stderr
	Check(b.Start())
	defer b.Process.Kill()
	Eventually(func() { Same(members(topic), []int{2, 2}) })
	spread(topic, 0, 5)
	Check(a.CommitMessages(always, fetch(a, 10)...))
	Eventually(func() {
		for partition := range 4 {
			Same(stored(topic, partition).CommittedOffset, 5)
		}
	})
	Check(b.Process.Kill())
	b.Wait() // says that it was killed
	Eventually(func() { Same(members(topic), []int{4}) })
	more := spread(topic, 5, 8)
	texts := values(fetch(a, len(more)))
	slices.Sort(texts)
	Same(texts, more)
	return ""
}

func groupReset(topic string) string {
	create(topic, 1)
	write(writer(), messages(topic, Numbers(0, 100))...)
	begins := func(offset int64) int64 {
		reader := join(topic, func(config *kafka.ReaderConfig) {
			config.GroupID, config.StartOffset = fmt.Sprint(topic, offset), offset
		})
		defer reader.Close()
		first := make(chan int64, 1)
		go func() { first <- fetch(reader, 1)[0].Offset }()
		for {
			select {
			case offset := <-first:
				return offset
			case <-time.After(time.Second):
				write(writer(), messages(topic, Numbers(0, 1))...)
			}
		}
	}
	Same(begins(kafka.FirstOffset), 0)
	Same(begins(kafka.LastOffset) >= 100, true)
	return ""
}

// groupKills: a member commits after every batch through a kill; another goes on from what is committed; three times.
func groupKills(topic string) string {
	create(topic, 1)
	var sent []kafka.Message
	for _, value := range Numbers(0, 20_000) {
		sent = append(sent, kafka.Message{Topic: topic, Value: []byte(value)})
	}
	write(writer(), sent...)
	read, acknowledged := int64(0), int64(0)
	for range 3 {
		// After each kill it joins as another member, and has nothing before the one it was has timed out.
		reader := join(topic, briefly)
		batch := fetch(reader, 1)
		next := batch[0].Offset
		Same(acknowledged <= next && next <= read, true)
		killed := make(chan bool, 1)
		killing := false
		for batches := 0; !killing || len(killed) == 0 || batches < 3; batch = fetch(reader, 1) {
			// After it has joined anew it reads again from what was committed as it joined: while it does, it commits more.
			Same(batch[0].Offset <= next, true)
			next = batch[0].Offset + 1
			read = max(read, next)
			if reader.CommitMessages(always, batch...) == nil {
				acknowledged = next
				batches++
			}
			if !killing && batches == 20 {
				killing, batches = true, 0
				go func() {
					Broker("kill")
					killed <- true
				}()
			}
		}
		Check(reader.Close())
	}
	Eventually(func() { Same(stored(topic, 0).CommittedOffset, acknowledged) })
	return fmt.Sprint(acknowledged, " committed")
}

func stored(topic string, partition int) kafka.OffsetFetchPartition {
	request := &kafka.OffsetFetchRequest{GroupID: topic, Topics: map[string][]int{topic: {partition}}}
	response := Must(client.OffsetFetch(always, request))
	Check(response.Error)
	Check(response.Topics[topic][0].Error)
	return response.Topics[topic][0]
}

// commit without joining is as "" at generation -1.
func commit(topic, member string, generation int, offset kafka.OffsetCommit) error {
	request := &kafka.OffsetCommitRequest{
		GroupID: topic, MemberID: member, GenerationID: generation,
		Topics: map[string][]kafka.OffsetCommit{topic: {offset}},
	}
	return Must(client.OffsetCommit(always, request)).Topics[topic][0].Error
}

func groupOffsets(topic string) string {
	create(topic, 2)
	Eventually(func() { Check(commit(topic, "", -1, kafka.OffsetCommit{Offset: 42, Metadata: "a note"})) })
	Same(stored(topic, 0), kafka.OffsetFetchPartition{CommittedOffset: 42, Metadata: "a note"})
	Same(stored(topic, 1).CommittedOffset, -1)
	refused(commit(topic, "", -1, kafka.OffsetCommit{Partition: 7}), kafka.UnknownTopicOrPartition)
	refused(commit(topic, "", -1, kafka.OffsetCommit{Offset: 43, Metadata: strings.Repeat("x", 4097)}), kafka.OffsetMetadataTooLarge)
	Same(stored(topic, 0).CommittedOffset, 42)
	Check(commit(topic, "", -1, kafka.OffsetCommit{Offset: 43, Metadata: strings.Repeat("x", 4096)}))
	Same(stored(topic, 0).CommittedOffset, 43)
	refused(commit(topic, "nobody", 0, kafka.OffsetCommit{Offset: 1}), kafka.UnknownMemberId)

	reader := join(topic)
	defer reader.Close()
	Eventually(func() { Same(members(topic), []int{2}) })
	described := Must(client.DescribeGroups(always, &kafka.DescribeGroupsRequest{GroupIDs: []string{topic}}))
	id := described.Groups[0].Members[0].MemberID
	refused(commit(topic, "nobody", 1, kafka.OffsetCommit{Offset: 1}), kafka.UnknownMemberId)
	refused(commit(topic, id, 1000, kafka.OffsetCommit{Offset: 1}), kafka.IllegalGeneration)
	return ""
}

func groupsAdmin(topic string) string {
	create(topic, 2)
	write(writer(func(writer *kafka.Writer) { writer.Balancer = partition(0) }), messages(topic, Numbers(0, 10))...)
	listed := func() string {
		response := Must(client.ListGroups(always, &kafka.ListGroupsRequest{}))
		Check(response.Error)
		for _, group := range response.Groups {
			if group.GroupID == topic {
				return fmt.Sprint(group.ProtocolType, " ", group.Coordinator)
			}
		}
		return ""
	}
	gone := func() error {
		return Must(client.DeleteGroups(always, &kafka.DeleteGroupsRequest{GroupIDs: []string{topic}})).Errors[topic]
	}
	unset := func() error {
		response := Must(client.OffsetDelete(always, &kafka.OffsetDeleteRequest{GroupID: topic, Topics: map[string][]int{topic: {0}}}))
		Check(response.Error)
		return response.Topics[topic][0].Error
	}
	describe := func() kafka.DescribeGroupsResponseGroup {
		return Must(client.DescribeGroups(always, &kafka.DescribeGroupsRequest{GroupIDs: []string{topic}})).Groups[0]
	}
	Same(listed(), "")
	refused(gone(), kafka.GroupIdNotFound)
	Same(describe().GroupState, "Dead") // as versions before 6 are told

	reader := join(topic)
	Check(reader.CommitMessages(always, fetch(reader, 10)...))
	Same(listed(), "consumer 1")
	Same(members(topic), []int{2})
	Same(describe().Members[0].ClientHost, "/127.0.0.1")
	Same(describe().Members[0].MemberMetadata.Topics, []string{topic})
	Same(stored(topic, 0).CommittedOffset, 10)
	refused(commit(topic, "", -1, kafka.OffsetCommit{Offset: 3}), kafka.UnknownMemberId)
	refused(unset(), kafka.GroupSubscribedToTopic)
	refused(gone(), kafka.NonEmptyGroup)
	Check(reader.Close())

	Eventually(func() { Same(describe().GroupState, "Empty") })
	Check(commit(topic, "", -1, kafka.OffsetCommit{Offset: 3}))
	Check(commit(topic, "", -1, kafka.OffsetCommit{Partition: 1, Offset: 1}))
	Same(stored(topic, 0).CommittedOffset, 3)
	Check(unset())
	Same(stored(topic, 0).CommittedOffset, -1)
	Same(stored(topic, 1).CommittedOffset, 1)
	Check(gone())
	Same(listed(), "")
	Same(stored(topic, 1).CommittedOffset, -1)
	return ""
}
