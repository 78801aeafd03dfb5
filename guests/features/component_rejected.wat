;; A component. Not a core module, hence not an Extism plugin.
;; Cardan's Extism ABI rejects it: the message says that a module is expected.
(component)
