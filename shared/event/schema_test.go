package event

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	reflector "github.com/invopop/jsonschema"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

//go:generate go test -run TestSchemaIsCurrent -update .

var update = flag.Bool("update", false, "rewrite schema.json")

// makeSchema derives the schema from the types. Every object is open, because of the embedded Extra fields.
func makeSchema() ([]byte, error) {
	r := &reflector.Reflector{
		AllowAdditionalProperties:  true,
		RequiredFromJSONSchemaTags: true,
		Mapper: func(t reflect.Type) *reflector.Schema {
			if t == reflect.TypeFor[jsontext.Value]() {
				return &reflector.Schema{} // any JSON value
			}
			return nil
		},
	}
	s := r.Reflect(&Event{})
	s.ID = ""
	s.Title = "Parley event, version " + Version
	for _, def := range s.Definitions {
		def.Properties.Delete("Extra")
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the event's schema: %w", err)
	}
	return append(data, '\n'), nil
}

// readSchema reads schema.json, the JSON Schema (draft 2020-12) of an encoded event.
func readSchema(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

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
	if got := readSchema(t); !bytes.Equal(got, want) {
		t.Fatal("schema.json is stale; run: go generate ./shared/event")
	}
}

func TestSchemaAcceptsWhatDecodeAccepts(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(readSchema(t)))
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
