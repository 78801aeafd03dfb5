curl -X DELETE http://localhost:3000/wasm/{module-uuid}
