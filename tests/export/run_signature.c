/* Runs one signature of a SavedModel through the TensorFlow C API, one uint8 tensor in, float32 [N] out, a line a row:
 *
 *   run_signature MODEL INPUT OUTPUT FILE N H W C [LABELS CLASS]
 *
 * with tensor names such as "serving_default_images:0". Of a class-conditional model, all images are of one class.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

static void check(TF_Status* status) {
  if (TF_GetCode(status) != TF_OK) {
    fprintf(stderr, "error %d: %s\n", TF_GetCode(status), TF_Message(status));
    exit(1);
  }
}

static TF_Output find(TF_Graph* graph, char* name) {
  char* colon = strchr(name, ':');
  *colon = '\0';
  TF_Output output = {TF_GraphOperationByName(graph, name), atoi(colon + 1)};
  if (output.oper == NULL) {
    fprintf(stderr, "no operation %s\n", name);
    exit(1);
  }
  return output;
}

int main(int argc, char** argv) {
  if (argc != 9 && argc != 11) {
    fprintf(stderr, "usage: %s MODEL INPUT OUTPUT FILE N H W C [LABELS CLASS]\n", argv[0]);
    return 2;
  }
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status);

  int64_t shape[4], size = 1;
  for (int i = 0; i < 4; i++) size *= shape[i] = atoll(argv[5 + i]);
  TF_Tensor* images = TF_AllocateTensor(TF_UINT8, shape, 4, size);
  FILE* file = fopen(argv[4], "rb");
  if (file == NULL || fread(TF_TensorData(images), 1, size, file) != (size_t)size) {
    fprintf(stderr, "%s does not hold %lld bytes\n", argv[4], (long long)size);
    return 1;
  }
  fclose(file);

  int num_inputs = argc == 11 ? 2 : 1;
  TF_Output inputs[2] = {find(graph, argv[2])}, output = find(graph, argv[3]);
  TF_Tensor *values[2] = {images}, *result = NULL;
  if (num_inputs == 2) {
    inputs[1] = find(graph, argv[9]);
    values[1] = TF_AllocateTensor(TF_INT64, shape, 1, 8 * shape[0]);
    for (int64_t i = 0; i < shape[0]; i++) ((int64_t*)TF_TensorData(values[1]))[i] = atoll(argv[10]);
  }
  TF_SessionRun(session, NULL, inputs, values, num_inputs, &output, &result, 1, NULL, 0, NULL, status);
  check(status);
  for (int64_t i = 0; i < TF_Dim(result, 0); i++) printf("%.9g\n", ((float*)TF_TensorData(result))[i]);

  for (int i = 0; i < num_inputs; i++) TF_DeleteTensor(values[i]);
  TF_DeleteTensor(result);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
