package pubsub

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"parley.internal/emulator/wal/waltest"
)

const (
	aTopic = "projects/p/topics/topic"
	aSub   = "projects/p/subscriptions/sub"
)

func reopen(t *testing.T, dir string, opts ...Option) *Server {
	t.Helper()
	s, err := New(append(opts, WithDataDir(dir))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// withCompactAt makes the journal compact after fewer bytes than by default.
func withCompactAt(bytes int64) Option { return func(o *options) { o.compactAt = bytes } }

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func publishTexts(t *testing.T, s *Server, key string, texts ...string) []string {
	t.Helper()
	req := &pubsubpb.PublishRequest{Topic: aTopic}
	for _, text := range texts {
		req.Messages = append(req.Messages, &pubsubpb.PubsubMessage{Data: []byte(text), OrderingKey: key})
	}
	return must[*pubsubpb.PublishResponse](t)(s.Publish(t.Context(), req)).MessageIds
}

func pullTexts(t *testing.T, s *Server, sub string) (texts []string, acks []string) {
	t.Helper()
	//lint:ignore SA1019 The test must see an empty backlog too.
	req := &pubsubpb.PullRequest{Subscription: sub, MaxMessages: 1000, ReturnImmediately: true}
	for _, m := range must[*pubsubpb.PullResponse](t)(s.Pull(t.Context(), req)).ReceivedMessages {
		texts = append(texts, string(m.Message.Data))
		acks = append(acks, m.AckId)
	}
	return texts, acks
}

func TestRestartKeepsTopicsSubscriptionsAndUnacknowledgedMessages(t *testing.T) {
	dir := t.TempDir()
	s := reopen(t, dir)
	ctx := t.Context()
	must[*pubsubpb.Topic](t)(s.CreateTopic(ctx, &pubsubpb.Topic{Name: aTopic, Labels: map[string]string{"a": "b"}}))
	must[*pubsubpb.Subscription](t)(s.CreateSubscription(ctx, &pubsubpb.Subscription{Name: aSub, Topic: aTopic, EnableMessageOrdering: true}))
	gone, none := aSub+"-gone", aSub+"-filtered"
	for _, sub := range []*pubsubpb.Subscription{{Name: gone}, {Name: none, Filter: "attributes:none"}} {
		sub.Topic = aTopic
		must[*pubsubpb.Subscription](t)(s.CreateSubscription(ctx, sub))
	}
	publishTexts(t, s, "k", "1", "2", "3", "4")
	_, acks := pullTexts(t, s, aSub)
	if _, err := s.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: aSub, AckIds: acks[:2]}); err != nil {
		t.Fatal(err)
	}
	must[*pubsubpb.Subscription](t)(s.UpdateSubscription(ctx, &pubsubpb.UpdateSubscriptionRequest{
		Subscription: &pubsubpb.Subscription{Name: aSub, AckDeadlineSeconds: 99},
		UpdateMask:   &fieldmaskpb.FieldMask{Paths: []string{"ack_deadline_seconds"}},
	}))
	if _, err := s.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: gone}); err != nil {
		t.Fatal(err)
	}

	for range 2 { // the second start reads a snapshot
		s.log.log.Compact(compact)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, dir, withCompactAt(1))
	}
	if snapshots, err := filepath.Glob(filepath.Join(dir, "snapshot-*")); err != nil || len(snapshots) != 1 {
		t.Errorf("snapshots %v, %v", snapshots, err)
	}
	if topic := must[*pubsubpb.Topic](t)(s.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: aTopic})); topic.Labels["a"] != "b" {
		t.Errorf("topic %v", topic)
	}
	if sub := must[*pubsubpb.Subscription](t)(s.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: aSub})); sub.AckDeadlineSeconds != 99 || !sub.EnableMessageOrdering {
		t.Errorf("subscription %v", sub)
	}
	if _, err := s.Backlog(gone); err == nil {
		t.Error("a deleted subscription came back")
	}
	if n, err := s.Backlog(none); n != 0 || err != nil {
		t.Errorf("the filtered subscription holds %d messages, %v", n, err)
	}
	ids := publishTexts(t, s, "k", "5")
	texts, _ := pullTexts(t, s, aSub)
	if !slices.Equal(texts, []string{"3", "4", "5"}) {
		t.Errorf("pulled %q, want 3, 4 and the new 5", texts)
	}
	if len(ids[0]) == 0 {
		t.Error("no id")
	}
	if _, err := s.DeleteTopic(ctx, &pubsubpb.DeleteTopicRequest{Topic: aTopic}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = reopen(t, dir)
	if sub := must[*pubsubpb.Subscription](t)(s.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: aSub})); sub.Topic != deletedTopic {
		t.Errorf("the topic is %s after a restart", sub.Topic)
	}
	if n, err := s.Backlog(aSub); n != 3 || err != nil {
		t.Errorf("%d messages, %v, want 3", n, err)
	}
}

// childDir is the environment variable that makes TestPublisherThatIsKilled the killed process.
const childDir = "PUBSUB_TEST_CHILD_DIR"

func TestPublisherThatIsKilled(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		t.Skip("only runs as a child of TestKillLosesNoPublishedMessage")
	}
	s := reopen(t, dir)
	must[*pubsubpb.Topic](t)(s.CreateTopic(t.Context(), &pubsubpb.Topic{Name: aTopic}))
	must[*pubsubpb.Subscription](t)(s.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: aSub, Topic: aTopic}))
	for i := 0; ; i++ {
		ids := publishTexts(t, s, "", fmt.Sprint(i))
		fmt.Println("published", ids[0])
	}
}

func TestKillLosesNoPublishedMessage(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestPublisherThatIsKilled$", "-test.v")
	child.Env = append(os.Environ(), childDir+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var published []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "published "); ok {
			published = append(published, id)
		}
		if len(published) == 200 {
			cancel() // sends SIGKILL; lines printed before the signal still count
		}
	}
	if err := child.Wait(); err == nil {
		t.Fatal("the child was not killed")
	}
	if len(published) < 200 {
		t.Fatalf("the child published %d messages only", len(published))
	}
	s := reopen(t, dir)
	held := map[string]bool{}
	for {
		//lint:ignore SA1019 The test must see the end of the backlog.
		req := &pubsubpb.PullRequest{Subscription: aSub, MaxMessages: 1000, ReturnImmediately: true}
		ms := must[*pubsubpb.PullResponse](t)(s.Pull(t.Context(), req)).ReceivedMessages
		if len(ms) == 0 {
			break
		}
		for _, m := range ms {
			held[m.Message.MessageId] = true
		}
	}
	for _, id := range published {
		if !held[id] {
			t.Errorf("message %s was published and is lost", id)
		}
	}
}

func TestJournalWithATornEndIsReadUpToTheLastWholeRecord(t *testing.T) {
	dir := t.TempDir()
	s := reopen(t, dir)
	must[*pubsubpb.Topic](t)(s.CreateTopic(t.Context(), &pubsubpb.Topic{Name: aTopic}))
	must[*pubsubpb.Subscription](t)(s.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: aSub, Topic: aTopic}))
	publishTexts(t, s, "", "whole")
	publishTexts(t, s, "", "torn")
	s.Close()
	logs, err := filepath.Glob(filepath.Join(dir, "log-*"))
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	path := logs[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, bytes := range map[string][]byte{
		"cut":     whole[:len(whole)-3],
		"garbled": append(slices.Clone(whole[:len(whole)-3]), 1, 2, 3),
		"zeroes":  append(slices.Clone(whole[:len(whole)-3]), make([]byte, 4096)...),
	} {
		if err := os.WriteFile(path, bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		s := reopen(t, dir)
		if texts, _ := pullTexts(t, s, aSub); !slices.Equal(texts, []string{"whole"}) {
			t.Errorf("%s: pulled %q", name, texts)
		}
		s.Close()
	}
}

// directorySize returns the size of all files in a directory, in bytes.
func directorySize(t *testing.T, dir string) (size int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a compaction has replaced the file
		}
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	return size
}

func TestJournalOfAcknowledgedMessagesStaysSmall(t *testing.T) {
	dir := t.TempDir()
	s := reopen(t, dir, withCompactAt(64<<10))
	must[*pubsubpb.Topic](t)(s.CreateTopic(t.Context(), &pubsubpb.Topic{Name: aTopic}))
	must[*pubsubpb.Subscription](t)(s.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: aSub, Topic: aTopic}))
	publishTexts(t, s, "", "kept")
	_, _ = pullTexts(t, s, aSub)
	big := strings.Repeat("x", 1000)
	const most = 256 << 10
	// A compaction runs beside the publishers. On a busy machine it can end after the loop has written more.
	limit := time.Now().Add(time.Minute)
	for round := 0; round < 100 || directorySize(t, dir) > most; round++ {
		if time.Now().After(limit) {
			t.Fatalf("the journal has %d bytes after %d kB came and went", directorySize(t, dir), 10*round)
		}
		publishTexts(t, s, "", big, big, big, big, big, big, big, big, big, big)
		_, acks := pullTexts(t, s, aSub)
		if _, err := s.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: aSub, AckIds: acks}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, dir)
	if texts, _ := pullTexts(t, s, aSub); len(texts) == 0 || texts[0] != "kept" {
		t.Errorf("pulled %q", texts)
	}
}

func TestDirectoryBelongsToOneServer(t *testing.T) {
	dir := t.TempDir()
	s := reopen(t, dir)
	if other, err := New(WithDataDir(dir)); err == nil {
		other.Close()
		t.Error("a second server took the directory")
	}
	s.Close()
	reopen(t, dir)
}

func TestBrokenDiskFailsEveryLaterPublish(t *testing.T) {
	dir := t.TempDir()
	s := reopen(t, dir)
	must[*pubsubpb.Topic](t)(s.CreateTopic(t.Context(), &pubsubpb.Topic{Name: aTopic}))
	waltest.BreakLog(t, dir)
	for range 2 {
		_, err := s.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: aTopic, Messages: []*pubsubpb.PubsubMessage{{Data: []byte("a")}}})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("publish: %v, want UNAVAILABLE", err)
		}
	}
	if err := s.Close(); err == nil {
		t.Error("close has no error")
	}
}
