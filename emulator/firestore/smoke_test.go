package firestore_test

import (
	"context"
	"testing"

	client "cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
)

const writerDir = "X"

func writeUntilKilled(string) {}

func TestADocumentIsReadBackAsItWasWritten(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		ctx := t.Context()
		ref := b.client.Collection("c").Doc("d")
		_, err := ref.Get(ctx)
		wantCode(t, err, codes.NotFound)
		must[*client.WriteResult](t)(ref.Set(ctx, map[string]any{"a": 1, "b": map[string]any{"c": "x"}}))
		_, err = ref.Create(ctx, map[string]any{"a": 1})
		wantCode(t, err, codes.AlreadyExists)
		must[*client.WriteResult](t)(ref.Update(ctx, []client.Update{{Path: "b.c", Value: "y"}}))
		snap := must[*client.DocumentSnapshot](t)(ref.Get(ctx))
		if v, _ := snap.DataAt("b.c"); v != "y" {
			t.Error(v)
		}
		err = b.client.RunTransaction(ctx, func(ctx context.Context, tx *client.Transaction) error {
			s, err := tx.Get(ref)
			if err != nil {
				return err
			}
			n, _ := s.DataAt("a")
			return tx.Update(ref, []client.Update{{Path: "a", Value: n.(int64) + 1}})
		})
		if err != nil {
			t.Fatal(err)
		}
		docs := must[[]*client.DocumentSnapshot](t)(b.client.Collection("c").Where("a", "==", 2).Documents(ctx).GetAll())
		if len(docs) != 1 {
			t.Error(docs)
		}
		bw := b.client.BulkWriter(ctx)
		j, err := bw.Set(b.client.Doc("c/e"), map[string]any{"a": 5})
		if err != nil {
			t.Fatal(err)
		}
		bw.End()
		must[*client.WriteResult](t)(j.Results())
		docs = must[[]*client.DocumentSnapshot](t)(b.client.Collection("c").OrderBy("a", client.Desc).Limit(1).Documents(ctx).GetAll())
		if len(docs) != 1 || docs[0].Ref.ID != "e" {
			t.Error(docs)
		}
	})
}
