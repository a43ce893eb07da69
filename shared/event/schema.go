package event

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/invopop/jsonschema"
)

//go:generate go test -run TestSchemaIsCurrent -update .

// Schema is the JSON Schema (draft 2020-12) of an encoded event.
//
//go:embed schema.json
var Schema []byte

// makeSchema derives the schema from the types. Every object is open, because of the embedded Extra fields.
func makeSchema() ([]byte, error) {
	r := &jsonschema.Reflector{
		AllowAdditionalProperties:  true,
		RequiredFromJSONSchemaTags: true,
		Mapper: func(t reflect.Type) *jsonschema.Schema {
			if t == reflect.TypeFor[jsontext.Value]() {
				return &jsonschema.Schema{} // any JSON value
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
