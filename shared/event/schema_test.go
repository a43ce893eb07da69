package event

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "rewrite schema.json")

func TestSchemaIsCurrent(t *testing.T) {
	want, err := makeSchema()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(Schema, want) {
		t.Fatal("schema.json is stale; run: go generate ./shared/event")
	}
}

func TestSchemaAcceptsWhatDecodeAccepts(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("event.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("event.json")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		in string
		ok bool
	}{
		"least":            {`{"v":"2","source":"s","correlationId":"c","type":"t"}`, true},
		"full":             {full, true},
		"no type":          {`{"v":"2","source":"s","correlationId":"c"}`, false},
		"another version":  {`{"v":"3","source":"s","correlationId":"c","type":"t"}`, false},
		"a number as type": {`{"v":"2","source":"s","correlationId":"c","type":1}`, false},
		"an unknown state": {`{"v":"2","source":"s","correlationId":"c","type":"t","candidates":[{"status":"maybe"}]}`, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inst, err := jsonschema.UnmarshalJSON(strings.NewReader(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			bySchema := schema.Validate(inst)
			_, byDecode := Decode([]byte(tt.in))
			if (bySchema == nil) != tt.ok {
				t.Errorf("schema says %v; want ok = %v", bySchema, tt.ok)
			}
			if (byDecode == nil) != tt.ok {
				t.Errorf("Decode says %v; want ok = %v", byDecode, tt.ok)
			}
		})
	}
}
