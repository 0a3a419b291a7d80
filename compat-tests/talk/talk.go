// Package talk is how a client program written in Go talks to the runner: see README.md beside this file.
package talk

import (
	"bufio"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"time"
)

// Bootstrap is the broker's address.
var Bootstrap = os.Getenv("BOOTSTRAP")

var input = bufio.NewScanner(os.Stdin)

// A Scenario is given its topic, fails by a panic, and may return a detail.
type Scenario func(topic string) string

// Answer serves the runner. cannot: scenario to why this client has no such thing.
func Answer(scenarios map[string]Scenario, cannot map[string]string) {
	for input.Scan() {
		name := input.Text()
		if scenario, there := scenarios[name]; there {
			fmt.Println(run(scenario, name))
		} else if why, there := cannot[name]; there {
			fmt.Println("NONE", why)
		} else {
			fmt.Println("NONE not a thing this client does")
		}
	}
}

func run(scenario Scenario, name string) (answer string) {
	defer func() {
		if failure := recover(); failure != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", name, failure, debug.Stack())
			answer = "FAIL " + strings.Join(strings.Fields(fmt.Sprint(failure)), " ")
		}
	}()
	return "PASS " + scenario(name)
}

// Broker has the runner end the broker ("restart": in order, "kill": at once) and start it again.
func Broker(what string) {
	fmt.Println("BROKER", what)
	input.Scan()
}

// Check fails the scenario if err is one.
func Check(err error) {
	if err != nil {
		panic(err)
	}
}

// Must is a call's value, or the scenario's failure.
func Must[T any](value T, err error) T {
	Check(err)
	return value
}

// Same fails the scenario if the two differ.
func Same[T any](got, wanted T) {
	if !reflect.DeepEqual(got, wanted) {
		panic(fmt.Sprintf("got %s, wanted %s", shorten(got), shorten(wanted)))
	}
}

func shorten(value any) string {
	text := fmt.Sprintf("%+v", value)
	if len(text) > 200 {
		return text[:200] + "..."
	}
	return text
}

// Eventually tries until the attempt no longer fails. Apache Kafka answers a client before all parts of the
// broker know of a new topic, or lead their partitions after a start: there clients try again, and so here.
func Eventually(attempt func()) {
	deadline := time.Now().Add(60 * time.Second)
	for !succeeds(attempt, time.Now().After(deadline)) {
		time.Sleep(20 * time.Millisecond)
	}
}

func succeeds(attempt func(), last bool) (done bool) {
	defer func() {
		if !done && !last {
			recover()
		}
	}()
	attempt()
	return true
}

// Numbers are the values most scenarios produce: value-FIRST up to before value-LAST.
func Numbers(first, last int) []string {
	var texts []string
	for number := first; number < last; number++ {
		texts = append(texts, fmt.Sprintf("value-%06d", number))
	}
	return texts
}
