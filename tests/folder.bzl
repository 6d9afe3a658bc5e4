"""The rules that every folder of tests has."""

def tests_of_folder(data = [], deps = ["//tests:support"]):
    """A library `support` of what the folder's tests share, and a py_test for each file test_*.py.

    Args:
      data: files that the tests read.
      deps: of `support`.
    """
    native.py_library(
        name = "support",
        testonly = True,
        srcs = native.glob(
            ["*.py"],
            allow_empty = True,
            exclude = ["test_*.py"],
        ),
        data = data,
        deps = deps,
        visibility = ["//visibility:public"],
    )
    for file in native.glob(["test_*.py"]):
        native.py_test(
            name = file[:-len(".py")],
            size = "large",
            srcs = [
                file,
                "//tests:pytest_main.py",
            ],
            args = ["$(location %s)" % file],
            main = "//tests:pytest_main.py",
            deps = [":support"],
        )
